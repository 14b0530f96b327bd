"""A host that is to be, with all of it decided; the sizes to begin with; and what it may not be called. Pure values."""

import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path, PurePosixPath
from types import MappingProxyType

from nixherd.base.errors import FleetError, Usage
from nixherd.base.names import DNS_LABEL, HOST_ID, is_a
from nixherd.fleet.groups import groups_of
from nixherd.fleet.models import DEFINITIONS, HOSTS, Fleet, GuestType
from nixherd.fleet.near_names import distance, normal
from nixherd.fleet.validate import GROUPS
from nixherd.ssh.age import is_recipient
from nixherd.trust.secrets import rules_edit
from nixherd.trust.secrets.files import Format, read_file
from nixherd.trust.secrets.keys import Recipient
from nixherd.trust.secrets.people import People
from nixherd.trust.secrets.placeholders import document
from nixherd.trust.secrets.rules import Unknown
from nixherd.trust.secrets.sops import Sops
from nixherd.trust.secrets.store import Secrets as AllSecrets
from nixherd.trust.secrets.store import Store

_Q35 = MappingProxyType({"cpu": "host", "machine": "q35"})
_NESTING = MappingProxyType({"unprivileged": True, "features": {"nesting": True}})
PLACEHOLDER = "placeholder"
"""its publicKey until it is installed (`nixherd.fleet.field_types.is_placeholder`)"""
# Words that have a meaning where hosts are named: who builds (build_on), this machine, parameters of the inventory.
_RESERVED = ("local", "target", "localhost", "self", "names_data", "override_data")
_LONG_NAME = 5  # letters of a group's name from which on a slip of one letter is near it
_NAME = rf"{HOST_ID}(?:/{HOST_ID})*"


@dataclass(frozen=True, slots=True)
class Size:
    """Memory is in MiB, `disk` as the definitions write it. `settings` are further attributes of the definition.

    `needs` are attributes that nobody can know beforehand: they are asked for.
    """

    name: str
    kind: GuestType
    cores: int
    memory: int
    disk: str
    suits: str
    settings: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}), hash=False)
    needs: tuple[str, ...] = ()


SIZES: Mapping[str, Size] = {
    size.name: size
    for size in (
        Size("small", GuestType.QEMU, 2, 2048, "16G", "one small service"),
        Size("docker", GuestType.QEMU, 4, 8192, "64G", "stacks of containers, with Docker"),
        Size("gpu", GuestType.QEMU, 6, 16384, "100G", "a GPU that is passed through, by a PCI mapping", _Q35, ("pci",)),
        Size("lxc", GuestType.LXC, 2, 1024, "16G", "a container, out of an archive of NixOS", _NESTING, ("archive",)),
    )
}


class Kind(StrEnum):
    """What it is."""

    VM = "vm"
    CONTAINER = "container"
    METAL = "metal"
    HOME = "home"

    @property
    def is_guest(self) -> bool:
        return self in (Kind.VM, Kind.CONTAINER)

    @property
    def has_disk(self) -> bool:
        """Whether disko lays out its disk."""
        return self in (Kind.VM, Kind.METAL)


@dataclass(frozen=True, slots=True)
class Keys:
    """Who may log in: `lines` of public keys, and what hosts.nix calls them (`masterKeys`), None if it does not."""

    lines: tuple[str, ...]
    expression: str | None = None


@dataclass(frozen=True, slots=True)
class Guest:
    """Its entry under `managed`. Memory is in MiB, `disk` as it is written there.

    `free` is what is known of the VMID: whether the hypervisor says that nobody has it, None where it was not asked.
    """

    size: Size
    vmid: int
    cores: int
    memory: int
    disk: str
    storage: str | None = None
    node: str | None = None
    pool: str | None = None
    pci: tuple[str, ...] = ()
    archive: str | None = None
    free: bool | None = None


@dataclass(frozen=True, slots=True)
class Machine:
    """What its configuration has to agree with: `firmware` is the VM's `bios`, `device` its disk as disko is told.

    `told_by` says who said so, None where nobody did and it is taken for granted.
    """

    firmware: str = "ovmf"
    device: str = "/dev/sda"
    told_by: str | None = None


@dataclass(frozen=True, slots=True)
class NewHost:
    """`directory` is where its files come, below the fleet's; `home_imports` are paths from there."""

    id: str
    kind: Kind
    alias: str
    user: str
    home_directory: str
    keys: Keys
    directory: str
    state_version: str
    machine: Machine = Machine()
    guest: Guest | None = None
    purpose: str = ""
    home: bool = True
    home_imports: tuple[str, ...] = ()
    sudo_passwordless: bool = False
    secrets: tuple[str, ...] = ()
    root_keys: bool = False
    """whether its own configuration has to let root in by key, as no module of the fleet does"""

    @property
    def is_nixos(self) -> bool:
        return self.kind is not Kind.HOME

    @property
    def type(self) -> GuestType | None:
        return self.guest.size.kind if self.guest else None

    @property
    def up(self) -> str:
        """The way from its files to the fleet's directory."""
        return "/".join(".." for _ in PurePosixPath(self.directory).parts)


def name_problem(name: str) -> str | None:
    """Why this is not a name for a host, None where it is one."""
    if not is_a(DNS_LABEL, name):
        return f"{name}: is not a DNS name; use letters, digits and '-', at most 63, a letter or digit at both ends"
    if name != name.lower():
        return f"{name}: DNS does not tell capitals apart; write {name.lower()}"
    if name.isdigit():
        return f"{name}: would be taken for a VMID; use a letter in it"
    if name in _RESERVED:
        return f"{name}: has a meaning of its own where hosts are named; choose another name"
    if group := _group_near(name):
        is_it = "is" if name == group else "is close to"
        return f"{name}: {is_it} the name of the group {group} of the inventory; choose another name"
    return None


def _group_near(name: str) -> str | None:
    for group in GROUPS:
        if normal(name) == normal(group):
            return group
        numbered = re.fullmatch(rf"{re.escape(normal(group))}\d+", normal(name))
        if len(group) >= _LONG_NAME and not numbered and distance(normal(name), normal(group), 1) <= 1:
            return group
    return None


def names_taken(fleet: Fleet, name: str, alias: str, vmid: int | None) -> Iterator[str]:
    """What of the fleet has one of these already, a line each."""
    yield from _taken_name(fleet, name, "")
    if alias != name:
        if not is_a(HOST_ID, alias):
            yield f"--ssh-alias {alias}: is not an alias; write one word of letters, digits, '-', '_' and '.'"
        elif alias in GROUPS:
            yield f"--ssh-alias {alias}: is the name of a group of the inventory; choose another"
        else:
            yield from _taken_name(fleet, alias, "--ssh-alias ")
    if vmid is not None:
        for vm in fleet.vms.values():
            if vm.vmid == vmid:
                yield f"--vmid {vmid}: is {vm.attribute}.vmid in {DEFINITIONS}; take another one"
        if fleet.template and fleet.template.vmid == vmid:
            yield f"--vmid {vmid}: is template.vmid in {DEFINITIONS}; take another one"


def _taken_name(fleet: Fleet, name: str, option: str) -> Iterator[str]:
    lower, given = name.lower(), f"{option}{name}"
    for host in fleet.hosts.values():
        owned = {"the id": host.id, "the hostname": host.hostname, "the sshAlias": host.ssh_alias}
        if what := next((what for what, each in owned.items() if each and each.lower() == lower), None):
            yield f"{given}: is {what} of {host.id} in {HOSTS} already; choose another name"
            return
    for vm in fleet.vms.values():
        if vm.name.lower() == lower:
            yield f"{given}: is {vm.attribute} in {DEFINITIONS} already; choose another name"
            return
    for group, members in groups_of(fleet).items():
        if group.lower() == lower:
            yield f"{given}: is a tag of {', '.join(members)}, which it would take the place of; choose another name"
            return


@dataclass(frozen=True, slots=True)
class Secrets:
    """`config` is `.sops.yaml` and `rules` as it is to be, `path` the file; `names` are of those who read it.

    `prefix` is the fleet's directory from the top of its repository.
    """

    config: str
    rules: bytes
    path: str
    recipients: tuple[Recipient, ...]
    names: tuple[str, ...]
    prefix: str


def require_names(names: Sequence[str]) -> None:
    """Usage for what is not a name of a secret in a YAML file, or cannot stand beside another one."""
    for name in names:
        if not is_a(_NAME, name) or name.split("/")[0] == "sops":
            raise Usage(f"--secret {name}: is not a name for a secret; use letters, digits, '_', '-', '.' and '/'")
        if names.count(name) > 1:
            raise Usage(f"--secret {name}: is given twice")
        if any(other.startswith(f"{name}/") for other in names):
            raise Usage(f"--secret {name}: another secret is below it; give it a name of its own")


def file_of(host_id: str) -> str:
    """The path of a host's own secrets, below the fleet's directory."""
    return f"secrets/{host_id}.yaml"


def secrets_problems(secrets: AllSecrets, fleet: Fleet, host_id: str) -> Iterator[str]:
    """Why the host can have no file of its own: the file is there, or somebody of its name is a recipient."""
    path = file_of(host_id)
    store = secrets.require_store(path)
    if os.path.lexists(secrets.root / path):
        yield f"{path}: is there already; move it away, or take another name"
    people = secrets.people(fleet)
    if any(host_id in (people.hosts.get(key), store.rules.names.get(key.value)) for key in store.rules.known):
        remedy = f"`nixherd secrets remove-host {host_id}` first, or take another name"
        yield f"{store.config}: {host_id} is a recipient already, another machine or a person; {remedy}"


def plan_secrets(secrets: AllSecrets, fleet: Fleet, host: NewHost, given: Collection[str] = ()) -> Secrets:
    """The rule for the host's file. For `given` people, by name or key; else for those whom every rule names.

    Usage when that is nobody.
    """
    store, people = secrets.require_store(file_of(host.id)), secrets.people(fleet)
    named = tuple(dict.fromkeys(_recipient(store, people, each) for each in given))
    chosen = named or _everywhere(store, people, fleet)
    if not chosen:
        known = ", ".join(sorted({people.name(key) for key in store.rules.known if key not in people.hosts}))
        raise Usage(f"--recipient: who is to read {host.id}'s secrets? No person is in every rule; name one of {known}")
    path, names, text = store.below(file_of(host.id)), tuple(people.name(key) for key in chosen), store.text
    rule = store.rules.rule_of(path)
    if isinstance(rule, Unknown):
        raise FleetError(f"{store.config}: which rule {path} has is not known: {rule.why}")
    if rule is None or not rule.is_named_after(host.id):  # no rule that it will join when it is enrolled
        text = rules_edit.add_rule(store.text, path, chosen, comment=f"{host.id}'s own.")
    elif set(rule.recipients) != set(chosen) or len(rule.groups) > 1:
        others = f"for others than {', '.join(names)}"
        raise Usage(
            f"{store.config}: {rule.label} is there for {host.id} already, {others}; take it out, or correct it"
        )
    if text != store.text:
        secrets.require_editable(store.config, f"a rule for {path}, for {', '.join(names)}")
    return Secrets(store.config, text.encode(), store.path(path), chosen, names, store.prefix)


def _everywhere(store: Store, people: People, fleet: Fleet) -> tuple[Recipient, ...]:
    named = store.rules.recipients if store.rules.rules else store.rules.known  # of the list of keys, before any rule
    everywhere = [key for key in named if all(key in rule.recipients for rule in store.rules.rules)]
    return tuple(key for key in everywhere if key not in people.hosts and people.name(key) not in fleet.hosts)


def _recipient(store: Store, people: People, given: str) -> Recipient:
    known = store.rules.known
    found = dict.fromkeys(key for key in known if given in (key.value, people.name(key)))
    if not found and is_recipient(given):
        raise Usage(f"--recipient {given}: {store.config} does not know this key; add it to its keys, with a name")
    if len(found) != 1:
        who = ", ".join(sorted({people.name(key) for key in known}))
        raise Usage(f"--recipient {given}: {store.config} knows nobody of this name; there are {who}")
    [key] = found
    if key in people.hosts:
        raise Usage(f"--recipient {given}: is a host; secrets of one host are no other's")
    return key


def encrypt_secrets(sops: Sops, secrets: Secrets, names: Sequence[str], staged: Path) -> bytes:
    """The file's content: a random value for each name, for whom the rule names, which is written below `staged`.

    FleetError when sops encrypts it for others, or not at all.
    """
    fleet = staged / secrets.prefix
    config = Path(os.path.normpath(fleet / secrets.config))
    for directory in (fleet, config.parent):
        directory.mkdir(parents=True, exist_ok=True)
    config.write_bytes(secrets.rules)
    content = sops.encrypt(fleet, config, secrets.path, document(Format.YAML, names))
    found = read_file(secrets.path, content)
    if found is None or set(found.recipients) != set(secrets.recipients):
        raise FleetError(f"{secrets.path}: sops encrypted it for others than {secrets.config} names; nothing was done")
    return content
