"""What was asked for, what is asked, and what the fleet's hosts have in common: from that comes the new host."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from nixherd.errors import FleetInvalid, Usage
from nixherd.fleet.models import Fleet, GuestType
from nixherd.fleet.schema import Place, fields_of
from nixherd.fleet.validate import DEFINITIONS, HOSTS
from nixherd.proxmox.preflight import INSTALLER_MEMORY
from nixherd.ssh.keys import parse_authorized_key
from nixherd.trust.new import guests, habits, names
from nixherd.trust.new.host import Guest, Keys, Kind, Machine, NewHost
from nixherd.trust.new.secrets import require_names
from nixherd.trust.new.sizes import SIZES, Size

if TYPE_CHECKING:
    from nixherd.proxmox.client import Client


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


_DEVICE = re.compile(r"/dev/[A-Za-z0-9][A-Za-z0-9_.:/+-]*")
_RELEASE = re.compile(r"\d\d\.(?:05|11)", re.ASCII)
Connect = Callable[[], "Client | None"]
"""The hypervisor's client; None where it is not to be asked."""


def decide(request: Request, fleet: Fleet, connect: Connect, read: habits.Read, ask: Ask) -> NewHost:
    """The host that was asked for. Usage or FleetInvalid, a line for each reason, when it cannot be."""
    if why := names.problem(request.name):
        raise Usage(why)
    _require_possible(request)
    if found := list(names.taken(fleet, request.name, request.name, request.vmid)):
        raise FleetInvalid(found)
    kind, size = _kind(request, ask)
    if kind.is_guest and fleet.endpoint is None:
        raise Usage(f"{DEFINITIONS}: proxmox: no endpoint is declared; add host and node, or say --no-vm")
    purpose = _purpose(request, ask)
    user = ask("--user", "Its admin user", habits.user(fleet)) if request.user is None else request.user
    alias = ask("--ssh-alias", "Its short name for ssh", request.name) if request.alias is None else request.alias
    if found := list(names.taken(fleet, request.name, alias, request.vmid)):
        raise FleetInvalid(found)
    directory = habits.directory(fleet)
    guest, machine = None, Machine()
    if size is not None:
        client = connect()
        guest = _guest(request, fleet, size, client, ask)
        machine = guests.machine(fleet, client) if kind is Kind.VM else machine
    elif kind is Kind.METAL:
        machine = Machine(device=request.device or ask("--device", "The disk to install on, such as /dev/nvme0n1"))
    host = NewHost(
        id=request.name,
        kind=kind,
        alias=alias,
        user=user,
        home_directory=habits.home_of(fleet, user),
        keys=_keys(request, fleet, read),
        directory=f"{directory}/{request.name}",
        state_version=request.state_version
        or habits.state_version(fleet, read)
        or ask("--state-version", "The NixOS release that it begins with, such as 25.11"),
        machine=machine,
        guest=guest,
        purpose=purpose,
        home=_home(request, fleet, kind),
        home_imports=habits.home_imports(fleet, read, directory),
        sudo_passwordless=kind is not Kind.HOME and _sudo(request, fleet),
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
        raise Usage("--no-vm and --home-only: a host that has only a home here is no machine of ours; say one of them")
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
    size = SIZES.get(name)
    if size is None:
        raise Usage(f"--size {name}: there is no such size; there are {', '.join(SIZES)}")
    return (Kind.CONTAINER if size.kind is GuestType.LXC else Kind.VM), size


def _purpose(request: Request, ask: Ask) -> str:
    purpose = request.purpose if request.purpose is not None else ask("--purpose", "What it is for", "")
    if not (purpose == "" or (purpose.isprintable() and purpose.strip() == purpose)):
        raise Usage("--purpose: is to be one line of text")
    return purpose


def _guest(request: Request, fleet: Fleet, size: Size, client: "Client | None", ask: Ask) -> Guest:
    for option, value, kinds in (("--pci", request.pci, GuestType.QEMU), ("--archive", request.archive, GuestType.LXC)):
        if value and size.kind is not kinds:
            raise Usage(
                f"{option}: is for a {'VM' if kinds is GuestType.QEMU else 'container'}, which {size.name} is not"
            )
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
        vmid, free = request.vmid, guests.require_free(client, request.vmid)
    else:
        span = (
            request.range or guests.usual_range(fleet, size.kind) or ask("--range", "From which VMIDs, such as 100-199")
        )
        vmid, free = guests.next_free(fleet, client, span)
    return Guest(
        size=size,
        vmid=vmid,
        cores=size.cores if request.cores is None else request.cores,
        memory=memory,
        disk=size.disk if request.disk is None else request.disk,
        storage=storage,
        node=request.node,
        pool=habits.pool(fleet) if request.pool is None else request.pool,
        pci=pci,
        archive=archive,
        free=free,
    )


def _keys(request: Request, fleet: Fleet, read: habits.Read) -> Keys:
    if request.key_lines:
        _require_keys(request.key_lines)
        return Keys(request.key_lines)
    if request.keys_of is not None and request.keys_of not in fleet.hosts:
        raise Usage(
            f"--keys-of {request.keys_of}: {HOSTS} has no such host; there are {', '.join(sorted(fleet.hosts))}"
        )
    found = habits.keys(fleet, read(HOSTS) or b"", request.keys_of)
    if found is None:
        raise Usage("--key-file: who may log in? No host says it with authorizedKeys; name the file of a public key")
    return found


def _require_keys(lines: Sequence[str]) -> None:
    for line in lines:
        try:
            parse_authorized_key(line)
        except ValueError as error:
            raise Usage(f"--key-file: no SSH public key: {error}; name a .pub file") from None


def _home(request: Request, fleet: Fleet, kind: Kind) -> bool:
    if kind is Kind.HOME:
        return True
    return habits.has_homes(fleet) if request.home is None else request.home


def _sudo(request: Request, fleet: Fleet) -> bool:
    return habits.sudo_passwordless(fleet) if request.sudo_passwordless is None else request.sudo_passwordless


def _require_fields(host: NewHost) -> None:
    """Usage where the table of fields says that an attribute may not be so."""
    values: list[tuple[Place, str, object, str]] = [(Place.HOST, "user", host.user, "--user")]
    if host.guest is not None:
        guest = host.guest
        values += [
            (Place.MANAGED, name, value, f"--{name}")
            for name, value in (
                *(("vmid", guest.vmid), ("cores", guest.cores), ("memory", guest.memory), ("disk", guest.disk)),
                *(("storage", guest.storage), ("node", guest.node), ("pool", guest.pool)),
                ("archive", guest.archive),
                ("pci", list(guest.pci) or None),
            )
        ]
    for place, name, value, option in values:
        field_ = fields_of(place)[name]
        for problem in field_.type.problems(value) if value is not None else ():
            raise Usage(f"{option}: {problem.what}; {problem.remedy or field_.remedy}")
    if not _DEVICE.fullmatch(host.machine.device):
        raise Usage(f"--device {host.machine.device}: is no disk's device; name one such as /dev/nvme0n1")
    if not _RELEASE.fullmatch(host.state_version):
        raise Usage(f"--state-version {host.state_version}: is no release of NixOS; name one such as 25.11")
