"""A host that is to be, with all of it decided; the sizes to begin with; and what it may not be called. Pure values."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import PurePosixPath
from types import MappingProxyType

from nixherd.base.names import DNS_LABEL, HOST_ID, is_a
from nixherd.fleet.groups import groups_of
from nixherd.fleet.models import DEFINITIONS, HOSTS, Fleet, GuestType
from nixherd.fleet.near_names import distance, normal
from nixherd.fleet.validate import GROUPS


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


_Q35 = MappingProxyType({"cpu": "host", "machine": "q35"})
_NESTING = MappingProxyType({"unprivileged": True, "features": {"nesting": True}})
SIZES: Mapping[str, Size] = {
    size.name: size
    for size in (
        Size("small", GuestType.QEMU, 2, 2048, "16G", "one small service"),
        Size("docker", GuestType.QEMU, 4, 8192, "64G", "stacks of containers, with Docker"),
        Size("gpu", GuestType.QEMU, 6, 16384, "100G", "a GPU that is passed through, by a PCI mapping", _Q35, ("pci",)),
        Size("lxc", GuestType.LXC, 2, 1024, "16G", "a container, out of an archive of NixOS", _NESTING, ("archive",)),
    )
}


PLACEHOLDER = "placeholder"
"""its publicKey until it is installed (`nixherd.fleet.field_types.is_placeholder`)"""


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


# Words that have a meaning where hosts are named: who builds (build_on), this machine, parameters of the inventory.
_RESERVED = ("local", "target", "localhost", "self", "names_data", "override_data")
_LONG_NAME = 5  # letters of a group's name from which on a slip of one letter is near it


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
