"""The fleet as values: hosts, virtual machines, where they live, and what may be done to them.

Everything here is frozen and does no I/O. `nixherd.fleet` parses the Nix files into these once, at the edge; all else
takes them as they are. Unknown is `None`, never `False`. Attributes that we do not know are people's documentation and
kept in `extra`: it is shown, never obeyed. What a guest's definition does not declare stays as it is on the hypervisor;
devices carry the API's own property names and texts (`bridge=vmbr0,tag=20`), to be compared with what the API shows.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from nixherd.base.becoming_root import Become
from nixherd.base.errors import Finding, FleetError
from nixherd.base.ssh_options import HopName
from nixherd.fleet.health_checks import Check
from nixherd.nix.kinds import Output

NO_VALUES: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Device:
    """A network card, a passed-through device or a further disk: `name` as the API has it (`net1`, `scsi1`).

    `values` are the declared properties, as texts; booleans are 1 and 0. `size` (bytes) and `storage` are a disk's.
    """

    name: str
    values: Mapping[str, str] = field(default_factory=lambda: NO_VALUES)
    size: int | None = None
    storage: str | None = None


@dataclass(frozen=True, slots=True)
class CloudInitSettings:
    """What the first boot is told; `addresses` by the API's names (`ipconfig0`)."""

    user: str | None = None
    keys: tuple[str, ...] | None = None
    addresses: Mapping[str, str] = field(default_factory=lambda: NO_VALUES)
    nameserver: str | None = None
    search_domain: str | None = None
    upgrade: bool | None = None


@dataclass(frozen=True, slots=True)
class ContainerSettings:
    """What only a container has: the archive that it is unpacked from, swap (MiB), privileges and features."""

    archive: str | None = None
    swap: int | None = None
    unprivileged: bool | None = None
    features: str | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """Declared settings; None and empty mean: as it is. `balloon` is MiB, 0 switches ballooning off."""

    sockets: int | None = None
    balloon: int | None = None
    cpu: str | None = None
    machine: str | None = None
    bios: str | None = None
    boot: tuple[str, ...] | None = None
    agent: bool | None = None
    description: str | None = None
    onboot: bool | None = None
    protection: bool | None = None
    startup: str | None = None
    pool: str | None = None
    disks: tuple[Device, ...] = ()
    networks: tuple[Device, ...] = ()
    pci: tuple[Device, ...] = ()
    cloud_init: CloudInitSettings = field(default_factory=CloudInitSettings)
    container: ContainerSettings = field(default_factory=ContainerSettings)


UNSET = Settings()


NOTHING: Mapping[str, Any] = MappingProxyType({})
HOSTS = "hosts.nix"
NIXHERD = "nixherd.nix"
FLAKE = "flake.nix"
DEFINITIONS = "vms/definitions.nix"  # where a fleet declares its guests
NO_ENDPOINT = f"{DEFINITIONS}: proxmox: no endpoint is declared"


class Access(StrEnum):
    """How far a machine lets us in. `shell`: what its user may. `push-closure`: closures are received, and one program
    activates them. `trigger`: it is told to pull its configuration itself. Where it is not `shell`, no fact, operation
    or command of ours is ever sent there; the NixOS option `nixherd.access` makes a machine be so."""

    SHELL = "shell"
    PUSH_CLOSURE = "push-closure"
    TRIGGER = "trigger"

    @property
    def user(self) -> str | None:
        """Who logs in there, where it is not the host's own user."""
        return None if self is Access.SHELL else "root"


@dataclass(frozen=True, slots=True)
class Configuration:
    """A configuration of the flake: its name in one of the outputs."""

    output: Output
    name: str

    def __str__(self) -> str:
        return f"{self.output.place}.{self.name}"


@dataclass(frozen=True, slots=True)
class Host:
    """One host. `public_key` is None while its entry has a placeholder, or none.

    `addresses` are None where it names none, `jump` where ssh_config says through what it is reached; `deployment` is
    what it says of how it is deployed to, by the names of `nixherd.deploy.options`. `configuration` is the flake's,
    where the entry does not say by its files what the host is. `unread` is why what that configuration says of it is
    not known here, so that it cannot be worked on; None where there is nothing more to know.
    """

    id: str
    hostname: str
    ssh_alias: str | None
    user: str
    home_directory: str | None
    public_key: str | None
    authorized_keys: tuple[str, ...]
    configuration_file: str | None
    home_file: str | None
    ssh_key_name: str | None = None
    initial_hashed_password: str | None = None
    sudo_passwordless: bool | None = None
    become: Become = Become.SUDO
    addresses: tuple[str, ...] | None = None
    port: int | None = None
    jump: tuple[str, ...] | None = None
    tags: tuple[str, ...] = ()
    access: Access = Access.SHELL
    health_checks: tuple[Check, ...] = ()
    deployment: Mapping[str, Any] = field(default_factory=lambda: NOTHING, hash=False)
    configuration: Configuration | None = None
    unread: str | None = None
    extra: Mapping[str, Any] = field(default_factory=lambda: NOTHING, compare=False)

    @property
    def is_nixos(self) -> bool:
        """A full NixOS host; otherwise Home Manager only."""
        if self.configuration is not None:
            return not self.configuration.output.is_home
        return self.configuration_file is not None

    @property
    def names(self) -> tuple[str, ...]:
        """Under which names and addresses it is tried where nobody else says where it is: its addresses, else its
        hostname and alias."""
        if self.addresses is not None:
            return self.addresses
        return tuple(dict.fromkeys(name for name in (self.hostname, self.ssh_alias) if name))

    @property
    def how_to_reboot(self) -> str:
        """The command with which its owner boots it."""
        return f"`ssh {self.ssh_alias or self.id} {self.become} systemctl reboot`"

    def require_read(self) -> None:
        """FleetError unless all is known of it that there is to know."""
        if self.unread:
            raise FleetError(f"{self.id}: {self.unread.removeprefix(f'{self.id}: ')}")

    @property
    def attribute(self) -> Configuration:
        """Where the flake has its configuration."""
        return self.configuration or Configuration(Output.SYSTEM if self.is_nixos else Output.HOME, self.id)


class GuestType(StrEnum):
    """What kind of guest a VMID names; the value is the word in the API's paths."""

    QEMU = "qemu"
    LXC = "lxc"


class Origin(StrEnum):
    """Which set of vms/definitions.nix declares the guest."""

    MANAGED = "managed"
    IMPORTED = "imported"


@dataclass(frozen=True, slots=True)
class Vm:
    """One guest of vms/definitions.nix. Memory is in MiB, `disk` in bytes; both are None for imported ones.

    `specs` and `status` are what people wrote down of it, in any form; `named` are the names in lower case by which an
    imported one says which host it is. `neighbours` and `discover` are None where the
    endpoint's count.
    """

    name: str
    vmid: int
    origin: Origin
    readonly: bool
    type: GuestType = GuestType.QEMU
    host_id: str | None = None
    cores: int | None = None
    memory: int | None = None
    disk: int | None = None
    storage: str | None = None
    node: str | None = None
    tags: tuple[str, ...] = ()
    settings: Settings = UNSET
    neighbours: tuple[str, ...] | None = None
    discover: tuple[str, ...] | None = None
    named: tuple[str, ...] = field(default=(), compare=False)
    specs: Any = field(default=None, compare=False)
    status: Any = field(default=None, compare=False)
    extra: Mapping[str, Any] = field(default_factory=lambda: NOTHING, compare=False)

    @property
    def is_managed(self) -> bool:
        return self.origin is Origin.MANAGED

    @property
    def may_change(self) -> bool:
        """True where the definitions let us send a changing request at all."""
        return self.is_managed and not self.readonly

    @property
    def attribute(self) -> str:
        """Where the guest is declared, for messages: `managed.dev`, `managed."web.lan"`."""
        return f'{self.origin}."{self.name}"' if "." in self.name else f"{self.origin}.{self.name}"


@dataclass(frozen=True, slots=True)
class Template:
    """The machine that new ones are cloned from; `node` is None where it is the endpoint's.

    `storage`, `bios` and `pool` are for its making.
    """

    vmid: int
    name: str | None = None
    node: str | None = None
    storage: str | None = None
    bios: str | None = None
    pool: str | None = None
    extra: Mapping[str, Any] = field(default_factory=lambda: NOTHING, compare=False)


@dataclass(frozen=True, slots=True)
class VmidRange:
    """A named range of VMIDs, both ends included."""

    name: str
    start: int
    end: int

    def __contains__(self, vmid: object) -> bool:
        return isinstance(vmid, int) and self.start <= vmid <= self.end


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the hypervisor's API answers, and how its certificate is known.

    `fingerprint` is the certificate's SHA-256 as 64 lower-case hex digits; None means verification by CA
    (`ca_file`, or the system's). `neighbours` are the ids or aliases of hosts on the guests' network, whose tables say
    where a card was seen; `discover` the networks that may be searched for a machine.
    """

    host: str
    node: str
    default_storage: str | None = None
    backup_storage: str | None = None
    port: int = 8006
    fingerprint: str | None = None
    ca_file: str | None = None
    neighbours: tuple[str, ...] = ()
    discover: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Unkept:
    """What the words of another tool in the flake say that nixherd has no part in, of these hosts, and why."""

    attribute: str
    why: str
    hosts: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.attribute}: {self.why}"


@dataclass(frozen=True, slots=True)
class Fleet:
    """The whole fleet. `path` is the flake's directory; `id` marks the VMs that are ours.

    `warnings` are what its author should know, and nobody has to. `skipped` are configurations that the flake has and
    that are no hosts here, by what they are called there, with why; `unkept` is what another tool's words for the hosts
    say in vain. `entries` and `defaults` are what the files say of
    hosts whose configurations may say more, unparsed; `file` is where people write what there is to say of a host.
    """

    path: str
    id: str
    hosts: Mapping[str, Host]
    vms: Mapping[str, Vm] = field(default_factory=dict)
    endpoint: Endpoint | None = None
    template: Template | None = None
    ranges: tuple[VmidRange, ...] = ()
    warnings: tuple[Finding, ...] = field(default=(), compare=False)
    skipped: Mapping[str, str] = field(default_factory=lambda: NOTHING, compare=False)
    unkept: tuple[Unkept, ...] = field(default=(), compare=False)
    entries: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: NOTHING, compare=False, repr=False)
    defaults: Mapping[str, Any] = field(default_factory=lambda: NOTHING, compare=False, repr=False)
    file: str = HOSTS

    @property
    def attributes(self) -> Mapping[str, str]:
        """How the flake calls the configurations of hosts that have another id, by that."""
        named = ((host.id, host.attribute.name) for host in self.hosts.values())
        return {host_id: name for host_id, name in named if name != host_id}

    @property
    def kinds(self) -> Mapping[str, Output]:
        """Where the flake has the configurations of hosts that are elsewhere than NixOS's own, by their ids."""
        found = {host.id: host.attribute.output for host in self.hosts.values()}
        return {host_id: output for host_id, output in found.items() if output is not Output.SYSTEM}

    def machine_of(self, host_id: str) -> str:
        """The host whose machine, and host key, it has: its own, but for a home of the flake on another host."""
        host = self.hosts.get(host_id)
        machine = self.hosts.get(host.hostname) if host and host.configuration and not host.is_nixos else None
        return machine.id if machine and machine.is_nixos else host_id

    def known_as(self, name: str) -> Host | None:
        """The host of this name: its id, else its alias, hostname or one of its addresses."""
        if name in self.hosts:
            return self.hosts[name]
        called = (host for host in self.hosts.values() if name in (host.ssh_alias, host.hostname, *host.names))
        return next(called, None)

    def hops_of(self, host_id: str) -> tuple[str, ...]:
        """The hosts, by their ids, that this one is reached through, as far as the fleet says; each once."""
        found: dict[str, None] = {}
        names = [host_id]
        while names:
            for text in self.hosts[names.pop()].jump or ():
                hop = self.known_as(HopName.parse(text).name)
                if hop and hop.id not in found:
                    found[hop.id] = None
                    names.append(hop.id)
        return tuple(found)

    def require_hosts_file(self, remedy: str) -> None:
        """FleetError, with what to do by hand, where hosts are not written into hosts.nix."""
        if self.file != HOSTS:
            raise FleetError(f"{self.path}: its hosts are the configurations of its flake, not in {HOSTS}; {remedy}")

    def vm_of(self, host_id: str) -> Vm | None:
        """The guest that this host runs in, if it is one."""
        return next((vm for vm in self.vms.values() if vm.host_id == host_id), None)

    def node_of(self, vm: Vm) -> str:
        """The node a guest lives on: its own `node`, else the endpoint's."""
        if vm.node:
            return vm.node
        assert self.endpoint is not None, "a fleet with VMs has an endpoint"
        return self.endpoint.node

    def neighbours_of(self, vm: Vm) -> tuple[Host, ...]:
        """The hosts that are asked where a guest's network card was seen, each once, never the guest's own."""
        named = self.endpoint.neighbours if vm.neighbours is None and self.endpoint else vm.neighbours or ()
        known = {name: host for host in self.hosts.values() for name in (host.ssh_alias, host.id) if name}
        found = {known[name].id: known[name] for name in named if name in known}
        return tuple(host for host in found.values() if host.id != vm.host_id)

    def networks_of(self, vm: Vm) -> tuple[str, ...]:
        """The networks that may be searched for a guest."""
        return self.endpoint.discover if vm.discover is None and self.endpoint else vm.discover or ()

    def storage_of(self, vm: Vm) -> str | None:
        return vm.storage or (self.endpoint.default_storage if self.endpoint else None)
