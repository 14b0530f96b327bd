"""What was asked for, what is asked, and what the fleet's hosts have in common: from that comes the new host."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Protocol, TypeVar

from nixherd.base.errors import FleetInvalid, Usage
from nixherd.base.ssh_keys import parse_authorized_key
from nixherd.fleet.models import DEFINITIONS, HOSTS, NO_ENDPOINT, Fleet, GuestType
from nixherd.fleet.schema import Place, fields_of
from nixherd.nix.edit import CannotEdit, NixText
from nixherd.proxmox.guest import identity, names
from nixherd.proxmox.guest.observe import template_node, template_or_why
from nixherd.proxmox.preflight import INSTALLER_MEMORY
from nixherd.trust.new.host import (
    SIZES,
    Guest,
    Keys,
    Kind,
    Machine,
    NewHost,
    Size,
    name_problem,
    names_taken,
    require_names,
)

if TYPE_CHECKING:
    from nixherd.proxmox.client import Client


_HOSTS_DIRECTORY = "hosts"
_FIRMWARE = ("ovmf", "seabios")
_GUEST_FIELDS = ("vmid", "cores", "memory", "disk", "storage", "node", "pool", "archive")
_DEVICE = re.compile(r"/dev/[A-Za-z0-9][A-Za-z0-9_.:/+-]*")
_RELEASE = re.compile(r"\d\d\.(?:05|11)", re.ASCII)
_STATE_VERSION = re.compile(r'\bstateVersion\s*=\s*"(\d\d\.(?:05|11))"')
_SHARED = re.compile(r"(?<![\w./])((?:\.\./)+[A-Za-z0-9_+-][A-Za-z0-9_./+-]*\.nix)\b")
_REFERENCE = re.compile(r"[A-Za-z_][A-Za-z0-9_'-]*(?:\.[A-Za-z_][A-Za-z0-9_'-]*)*")

T = TypeVar("T")
Connect = Callable[[], "Client | None"]
"""The hypervisor's client; None where it is not to be asked."""
Read = Callable[[str], bytes | None]
"""A file's content, by its path below the fleet's directory."""


class Ask(Protocol):
    """How what was not said is learnt: a person is asked where there is one, else the default counts.

    `choices` are all that may be said, each with what it means. Usage, naming the option, where there is neither.
    """

    def __call__(
        self, option: str, question: str, default: str | None = None, choices: Mapping[str, str] | None = None
    ) -> str: ...


@dataclass(frozen=True, slots=True)
class Request:
    """What the options say; None where they do not. Memory is in MiB."""

    name: str
    size: str | None = None
    bare_metal: bool = False
    home_only: bool = False
    vmid: int | None = None
    range: str | None = None
    cores: int | None = None
    memory: int | None = None
    disk: str | None = None
    storage: str | None = None
    node: str | None = None
    pool: str | None = None
    pci: tuple[str, ...] = ()
    archive: str | None = None
    device: str | None = None
    user: str | None = None
    alias: str | None = None
    purpose: str | None = None
    keys_of: str | None = None
    key_lines: tuple[str, ...] = field(default=())
    home: bool | None = None
    sudo_passwordless: bool | None = None
    state_version: str | None = None
    secrets: tuple[str, ...] = ()


def decide(request: Request, fleet: Fleet, connect: Connect, read: Read, ask: Ask) -> NewHost:
    """The host that was asked for. Usage or FleetInvalid, a line for each reason, when it cannot be."""
    if why := name_problem(request.name):
        raise Usage(why)
    _require_possible(request)
    if found := list(names_taken(fleet, request.name, request.name, request.vmid)):
        raise FleetInvalid(found)
    kind, size = _kind(request, ask)
    if kind.is_guest and fleet.endpoint is None:
        raise Usage(f"{NO_ENDPOINT}; add host and node, or say --no-vm")
    purpose = ask("--purpose", "What it is for", "") if request.purpose is None else request.purpose
    if not (purpose == "" or (purpose.isprintable() and purpose.strip() == purpose)):
        raise Usage("--purpose: is to be one line of text")
    user = ask("--user", "Its admin user", usual_user(fleet)) if request.user is None else request.user
    alias = ask("--ssh-alias", "Its short name for ssh", request.name) if request.alias is None else request.alias
    if found := list(names_taken(fleet, request.name, alias, request.vmid)):
        raise FleetInvalid(found)
    directory = usual_directory(fleet)
    guest, machine = None, Machine()
    if size is not None:
        client = connect()
        guest = _guest(request, fleet, size, client, ask)
        machine = machine_of(fleet, client) if kind is Kind.VM else machine
    elif kind is Kind.METAL:
        machine = Machine(device=request.device or ask("--device", "The disk to install on, such as /dev/nvme0n1"))
    host = NewHost(
        id=request.name,
        kind=kind,
        alias=alias,
        user=user,
        home_directory=usual_home(fleet, user),
        keys=_keys(request, fleet, read),
        directory=f"{directory}/{request.name}",
        state_version=request.state_version
        or newest_state_version(fleet, read)
        or ask("--state-version", "The NixOS release that it begins with, such as 25.11"),
        machine=machine,
        guest=guest,
        purpose=purpose,
        home=kind is Kind.HOME or (most_have_homes(fleet) if request.home is None else request.home),
        home_imports=shared_imports(fleet, read, directory),
        sudo_passwordless=kind is not Kind.HOME
        and (sudo_asks_nobody(fleet) if request.sudo_passwordless is None else request.sudo_passwordless),
        secrets=request.secrets,
    )
    _require_fields(host)
    return host


def _require_possible(request: Request) -> None:
    """Usage for options that do not go together, or say what no host may."""
    guests_own = {
        **{"--size": request.size, "--vmid": request.vmid, "--range": request.range, "--cores": request.cores},
        **{"--memory": request.memory, "--disk": request.disk, "--storage": request.storage, "--node": request.node},
        **{"--pool": request.pool, "--pci": request.pci, "--archive": request.archive},
    }
    no_guest = "--no-vm" if request.bare_metal else "--home-only"
    if request.bare_metal and request.home_only:
        raise Usage("--no-vm and --home-only: a host with only a home here is not a machine of ours; say one of them")
    if request.bare_metal or request.home_only:
        for option, value in guests_own.items():
            if value not in (None, ()):
                raise Usage(f"{option}: is a guest's, and with {no_guest} there is none; leave one of them out")
    if request.home_only and request.home is False:
        raise Usage("--no-home: with --home-only nothing would be left; leave one of them out")
    if request.home_only and request.secrets:
        raise Usage("--secret: a host that has only a home here declares none; leave it out")
    if request.home_only and request.sudo_passwordless is not None:
        raise Usage("--sudo-passwordless, --sudo-asks: with --home-only somebody else says that; leave it out")
    if request.device and not request.bare_metal:
        raise Usage("--device: a VM's disk is its template's; say it with --no-vm alone")
    if request.vmid is not None and request.range is not None:
        raise Usage("--vmid and --range: a VMID is chosen by one of them; leave the other out")
    if request.keys_of is not None and request.key_lines:
        raise Usage("--keys-of and --key-file: who may log in is said by one of them; leave the other out")
    words = {"--user": request.user, "--ssh-alias": request.alias, "--keys-of": request.keys_of, **guests_own}
    for option, value in (words | {"--device": request.device, "--state-version": request.state_version}).items():
        if value == "" or value == ("",):
            raise Usage(f"{option}: is empty; say something, or leave it out")
    require_names(request.secrets)


def _kind(request: Request, ask: Ask) -> tuple[Kind, Size | None]:
    if request.bare_metal:
        return Kind.METAL, None
    if request.home_only:
        return Kind.HOME, None
    suits = {size.name: size.suits for size in SIZES.values()}
    name = request.size or ask("--size", "Its size", "small", suits)
    size = SIZES[name]  # no other can be said
    return (Kind.CONTAINER if size.kind is GuestType.LXC else Kind.VM), size


def _guest(request: Request, fleet: Fleet, size: Size, client: "Client | None", ask: Ask) -> Guest:
    for option, value, kinds in (("--pci", request.pci, GuestType.QEMU), ("--archive", request.archive, GuestType.LXC)):
        if value and size.kind is not kinds:
            raise Usage(f"{option}: is for a {'VM' if kinds is GuestType.QEMU else 'container'}, not for {size.name}")
    pci, archive = request.pci, request.archive
    if "pci" in size.needs and not pci:
        pci = (ask("--pci", "The PCI mapping of the cluster that is passed through, such as igpu"),)
    if "archive" in size.needs and archive is None:
        archive = ask("--archive", "The archive that it is unpacked from, such as local:vztmpl/nixos-25.11.tar.xz")
    storage = request.storage
    if storage is None and fleet.endpoint is not None and fleet.endpoint.default_storage is None:
        storage = ask("--storage", "The storage for its disk")
    memory = size.memory if request.memory is None else request.memory
    if size.kind is GuestType.QEMU and memory < INSTALLER_MEMORY:
        raise Usage(f"--memory {memory}: the installer lives in memory; give {INSTALLER_MEMORY} MiB or more")
    if request.vmid is not None:
        vmid, free = request.vmid, identity.require_free(client, request.vmid)
    else:
        span = request.range or identity.usual_range(fleet, size.kind)
        span = span or ask("--range", "From which VMIDs, such as 100-199")
        vmid, free = identity.next_free(fleet, client, span)
    return Guest(
        size=size,
        vmid=vmid,
        cores=size.cores if request.cores is None else request.cores,
        memory=memory,
        disk=size.disk if request.disk is None else request.disk,
        storage=storage,
        node=request.node,
        pool=usual_pool(fleet) if request.pool is None else request.pool,
        pci=pci,
        archive=archive,
        free=free,
    )


def _keys(request: Request, fleet: Fleet, read: Read) -> Keys:
    if request.key_lines:
        try:
            list(map(parse_authorized_key, request.key_lines))
        except ValueError as error:
            raise Usage(f"--key-file: no SSH public key: {error}; name a .pub file") from None
        return Keys(request.key_lines)
    if request.keys_of is not None and request.keys_of not in fleet.hosts:
        raise Usage(f"--keys-of {request.keys_of}: {HOSTS} has no such host; it has {', '.join(sorted(fleet.hosts))}")
    found = usual_keys(fleet, read(HOSTS) or b"", request.keys_of)
    if found is None:
        raise Usage("--key-file: who may log in? No host says it with authorizedKeys; name the file of a public key")
    return found


def _require_fields(host: NewHost) -> None:
    """Usage where the table of fields says that an attribute may not be so."""
    values: list[tuple[Place, str, object]] = [(Place.HOST, "user", host.user)]
    if host.guest is not None:
        values += [(Place.MANAGED, name, getattr(host.guest, name)) for name in _GUEST_FIELDS]
        values.append((Place.MANAGED, "pci", list(host.guest.pci) or None))
    for place, name, value in values:
        field_ = fields_of(place)[name]
        for problem in field_.type.problems(value) if value is not None else ():
            raise Usage(f"--{name}: {problem.what}; {problem.remedy or field_.remedy}")
    if not _DEVICE.fullmatch(host.machine.device):
        raise Usage(f"--device {host.machine.device}: is not a disk's device; name one such as /dev/nvme0n1")
    if not _RELEASE.fullmatch(host.state_version):
        raise Usage(f"--state-version {host.state_version}: is not a release of NixOS; name one such as 25.11")


# What the fleet's hosts have in common


def usual_user(fleet: Fleet) -> str | None:
    """The admin user of most hosts; None where no host has one."""
    return _most(host.user for host in fleet.hosts.values())


def usual_home(fleet: Fleet, user: str) -> str:
    """Where this user's home is, as other hosts have it."""
    homes = (host.home_directory for host in fleet.hosts.values() if host.user == user and host.home_directory)
    return _most(homes) or ("/root" if user == "root" else f"/home/{user}")


def most_have_homes(fleet: Fleet) -> bool:
    """Whether most hosts have a homeFile; also without any host."""
    return not fleet.hosts or _most(host.home_file is not None for host in fleet.hosts.values()) is True


def sudo_asks_nobody(fleet: Fleet) -> bool:
    """Whether sudo asks nobody on most hosts that live in managed guests."""
    managed = {vm.host_id for vm in fleet.vms.values() if vm.is_managed}
    return _most(host.sudo_passwordless is True for host in fleet.hosts.values() if host.id in managed) is True


def usual_pool(fleet: Fleet) -> str | None:
    """The pool that most managed guests are made in: often a token may make guests in that one alone."""
    return _most(vm.settings.pool for vm in fleet.vms.values() if vm.is_managed)


def usual_directory(fleet: Fleet) -> str:
    """Where the directories of hosts are, below the fleet's: what most have whose files are in one of their own."""
    found = []
    for host in fleet.hosts.values():
        for place in _below(fleet, host.configuration_file, host.home_file):
            if place.parent.name == host.id and len(place.parts) > 2:
                found.append(str(place.parent.parent))
    return _most(found) or _HOSTS_DIRECTORY


def newest_state_version(fleet: Fleet, read: Read) -> str | None:
    """The newest release that a host's files say their state is of; None where none says."""
    found: list[str] = []
    for host in fleet.hosts.values():
        for place in _below(fleet, host.configuration_file, host.home_file):
            found += _STATE_VERSION.findall((read(str(place)) or b"").decode(errors="replace"))
    return max(found, default=None)


def shared_imports(fleet: Fleet, read: Read, directory: str) -> tuple[str, ...]:
    """What most homes import of what they share, as paths from a directory of a host."""
    depth = len(PurePosixPath(directory).parts) + 1
    counted: Counter[str] = Counter()
    homes = 0
    for host in fleet.hosts.values():
        for place in _below(fleet, host.home_file):
            if len(place.parts) == depth + 1:
                homes += 1
                text = (read(str(place)) or b"").decode(errors="replace")
                counted.update(list(dict.fromkeys(_SHARED.findall(text))))
    return tuple(path for path, number in counted.items() if homes > 1 and number * 2 > homes)


def usual_keys(fleet: Fleet, hosts_nix: bytes, of: str | None = None) -> Keys | None:
    """Who may log in to most hosts, or to the host `of`, and how hosts.nix says it; None where nobody may anywhere."""
    hosts = [fleet.hosts[of]] if of else list(fleet.hosts.values())
    lines = _most(host.authorized_keys for host in hosts if host.authorized_keys)
    if lines is None:
        return None
    text = NixText(HOSTS, hosts_nix)
    written = []
    for host in (host for host in hosts if host.authorized_keys == lines):
        try:
            expression = text.written((host.id, "authorizedKeys"))
        except CannotEdit:
            return Keys(lines)
        written.append(expression if expression and _REFERENCE.fullmatch(expression) else None)
    return Keys(lines, _most(written))


def _below(fleet: Fleet, *files: str | None) -> list[PurePosixPath]:
    """Those of the files that are below the fleet's directory, relative to that."""
    paths = [PurePosixPath(file) for file in files if file]
    return [path.relative_to(fleet.path) for path in paths if path.is_relative_to(fleet.path)]


def _most(values: Iterable[T]) -> T | None:
    """The most frequent one, the first of those that are equally so; None where there is none."""
    counted = Counter(values).most_common(1)
    return counted[0][0] if counted else None


def machine_of(fleet: Fleet, client: "Client | None") -> Machine:
    """The firmware and the disk that a clone of the fleet's template has: as the hypervisor says, else the definitions.

    Where neither says, what the template is made with (`nixherd template create`).
    """
    if fleet.template is None:
        return Machine()
    if client is not None and fleet.endpoint is not None:
        config, _ = template_or_why(client, fleet)
        if config is not None:
            drive = config.boot_disk
            disks = names.disks_of(config, ())
            device = names.kernel_names(drive.name, disks)[0] if drive else Machine().device
            return Machine(config.bios, device, f"template {fleet.template.vmid} on {template_node(fleet)}")
    given = fleet.template.extra.get("specs")
    specs = given if isinstance(given, Mapping) else {}
    bios = fleet.template.bios or (specs.get("bios") if specs.get("bios") in _FIRMWARE else None)
    disk = str(specs.get("disk"))
    is_disk = disk.rstrip("0123456789") in ("scsi", "sata", "ide", "virtio")
    device = names.kernel_names(disk, {disk: {}})[0] if is_disk else Machine().device
    return Machine(bios or Machine().firmware, device, f"{DEFINITIONS}: template" if bios else None)
