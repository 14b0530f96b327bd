"""Verbs that set a guest's options, cards, passed-through devices and cloud-init."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from nixherd.base.errors import Usage
from nixherd.base.names import Whole, any_text, flag_of, names_of, options_of, text_of
from nixherd.base.ssh_keys import parse_authorized_key
from nixherd.fleet.models import Device, Fleet, GuestType, Vm
from nixherd.proxmox.belongings import belongings
from nixherd.proxmox.config import encode_ssh_keys
from nixherd.proxmox.guest import names
from nixherd.proxmox.guest.apply import is_so, to_send
from nixherd.proxmox.guest.desired import card_changes, device_changes, short
from nixherd.proxmox.guest.identity import ActualVm, label, marked, of_change
from nixherd.proxmox.guest.verb import Guest, Verb, flag, option, waiting
from nixherd.proxmox.steps import Change, Configure, Regenerate, Row, Steps, nothing

_AS_ASKED = nothing("its options are as asked for")


class _Options(Verb):
    """A verb that sets options by the API's names and in its words (`cores`, `net0`); None takes an option away."""

    verb = "configure"

    def options(self, fleet: Fleet, vm: Vm) -> Mapping[str, object]:
        """Return the options as the API takes them. Raise Usage for one that cannot be meant."""
        raise NotImplementedError

    def check(self, fleet: Fleet, vm: Vm) -> None:
        names.require_options(vm, self.options(fleet, vm))

    def look(self, guest: Guest) -> Steps:
        seen, vm = guest.ours, guest.vm
        values = to_send(guest.fleet, vm, seen.config, dict(self.options(guest.fleet, vm)))
        changes = tuple(
            Change(key, short(seen.config.text(key)), _after(vm, seen, key, value), value)
            for key, value in values.items()
            if not is_so(seen.config, key, value)
        )
        return (Configure(seen.node, vm.vmid, changes, seen.config.digest, type=vm.type),) if changes else _AS_ASKED

    judge = waiting


def _after(vm: Vm, seen: ActualVm, key: str, value: object) -> str:
    """Describe an option's new value; where a disk is taken away, what becomes of its volume."""
    parts = belongings(vm.type, vm.vmid, seen.config).parts if value is None else ()
    part = next((part for part in parts if part.name == key), None)
    if part is None:
        return short(value)
    destroyed = part.remade or key.startswith("unused")
    return f"none ({part.volume} {'is destroyed' if destroyed else 'stays as an unused disk'})"


@dataclass(frozen=True)
class SetOptions(_Options):
    """Set these options."""

    values: Mapping[str, object]

    def options(self, fleet: Fleet, vm: Vm) -> Mapping[str, object]:
        return self.values


_COUNT = Whole(1)


@dataclass(frozen=True)
class ConfigureGuest(_Options):
    """Set these options, those in `unset` taken away; without any, what the definitions declare.

    `memory` and `balloon` are MiB, `boot` devices in their order, `startup` as in `order=2,up=30`. What a running guest
    takes up later waits for a `reboot`.
    """

    name = "configure"
    undo = True
    row = Row.CONFIGURE
    cores: int | None = option(_COUNT)
    sockets: int | None = option(_COUNT)
    memory: int | None = option(_COUNT)
    balloon: int | None = option(Whole(0))
    cpu: str | None = option(text_of)
    machine: str | None = option(text_of)
    bios: str | None = option(text_of)
    boot: Sequence[str] | None = option(names_of)
    agent: bool | None = option(flag_of)
    tags: Sequence[str] | None = option(names_of)
    description: str | None = option(any_text)
    onboot: bool | None = option(flag_of)
    startup: str | None = option(text_of)
    protection: bool | None = option(flag_of)
    unset: Sequence[str] | None = option(names_of)

    def options(self, fleet: Fleet, vm: Vm) -> Mapping[str, object]:
        values = options_of({name: getattr(self, name) for name in self.parameters() if name != "unset"})
        if self.memory is not None:
            values["memory"] = str(self.memory)
        if self.agent is not None:
            values["agent"] = f"enabled={int(self.agent)}"
        if self.boot is not None:
            names.require_boot_order(self.boot)
            values["boot"] = f"order={';'.join(self.boot)}"
        if self.tags is not None:
            values["tags"] = ";".join(self.tags)
        if self.description is not None:
            values["description"] = marked(fleet, vm, self.description)
        for key in self.unset or ():
            if key in values:
                raise Usage(f"{key} is both set and in unset; say one of them")
            values[key] = None
        return values


# Cards and passed-through devices


@dataclass(frozen=True)
class SetDevice(Verb):
    """Give a guest a network card or passed-through device with these properties, what is not said as it is."""

    verb = "configure"
    device: Device

    def check(self, fleet: Fleet, vm: Vm) -> None:
        names.require_options(vm, {self.device.name: self.device})

    def look(self, guest: Guest) -> Steps:
        seen, vm = guest.ours, guest.vm
        is_vm = vm.type is GuestType.QEMU
        changes = tuple((device_changes if is_vm else card_changes)(self.device, seen.config))
        waits = tuple(each.key for each in changes if is_vm and of_change(seen, each))
        if not changes:
            return _AS_ASKED
        return (Configure(seen.node, vm.vmid, changes, seen.config.digest, waits, type=vm.type),)

    judge = waiting


def property_of(name: str, value: object) -> str:
    """Read a property of a device as the API writes it. Raise Usage for what would be several."""
    text = str(int(value)) if isinstance(value, bool) else text_of(name, str(value))
    if "," in text or "=" in text:
        raise Usage(f"{name}={value} cannot be a value of it")
    return text


class _OneDevice(Verb):
    """A verb that gives a guest one device of a `family`, or takes it away."""

    verb = "configure"
    family: ClassVar[str]
    needs: ClassVar[str]
    device: str
    present: bool

    def _action(self) -> SetOptions | SetDevice:
        names.require_device(self.family, self.device)
        if not self.present:
            return SetOptions({self.device: None})
        given = {name: getattr(self, name) for name in self.parameters() if name not in ("device", "present")}
        values = {_SPELT.get(name, name): str(value) for name, value in options_of(given).items()}
        if not values or (self.family == "hostpci" and "mapping" not in values):
            raise Usage(f"{self.device}: say what it is to have: {self.needs}")
        return SetDevice(Device(self.device, values))

    def check(self, fleet: Fleet, vm: Vm) -> None:
        self._action().check(fleet, vm)

    def look(self, guest: Guest) -> Steps:
        return self._action().look(guest)

    judge = waiting


_SPELT = {"mac": "macaddr", "x_vga": "x-vga"}


@dataclass(frozen=True)
class SetNetwork(_OneDevice):
    """Give the guest a network card with these properties, the others as they are; `present=False`: take it away."""

    name = "network"
    family = "net"
    needs = "a bridge, a tag, …"
    device: str = option(text_of, "net0")
    bridge: str | None = option(property_of)
    model: str | None = option(property_of)
    tag: str | None = option(property_of)
    firewall: str | None = option(property_of)
    mac: str | None = option(property_of)
    mtu: str | None = option(property_of)
    rate: str | None = option(property_of)
    present: bool = flag(default=True)


@dataclass(frozen=True)
class PassThrough(_OneDevice):
    """Pass a PCI device through by the name of a mapping of the cluster; or take it away (`present=False`)."""

    name = "pci"
    family = "hostpci"
    needs = "a mapping"
    device: str = option(text_of, "hostpci0")
    mapping: str | None = option(property_of)
    pcie: str | None = option(property_of)
    x_vga: str | None = option(property_of)
    rombar: str | None = option(property_of)
    present: bool = flag(default=True)


# Cloud-init


def keys_of(name: str, value: object) -> str:
    """Read public keys as the API takes them. Raise Usage when they are not keys."""
    if not isinstance(value, (list, tuple)) or not value:
        raise Usage(f"{name} is not a list of public keys")
    for key in value:
        try:
            parse_authorized_key(str(key))
        except ValueError as error:
            raise Usage(f"{name}: not an SSH public key: {error}") from None
    return encode_ssh_keys(map(str, value))


def addresses_of(name: str, value: object) -> Mapping[str, object]:
    """Read addresses by the name of their option. Raise Usage when they are something else."""
    if not isinstance(value, Mapping) or not value:
        raise Usage(f'{name} is not a mapping; write {{"ipconfig0": "ip=dhcp"}}')
    for key, text in value.items():
        known = names.is_device("ipconfig", str(key)) and isinstance(text, str)
        if not known or not text.startswith(("ip=", "ip6=", "gw=", "gw6=")):
            raise Usage(f"{name}: {key}={text} is not an address; write ipconfig0 and ip=dhcp")
    return dict(value)


@dataclass(frozen=True)
class SetCloudInit(_Options):
    """Set these of the cloud-init options, or without any what the definitions say: who may log in, and DHCP.

    `keys` are lines of `.pub` files, `addresses` as in `{"ipconfig0": "ip=10.0.0.5/24,gw=10.0.0.1"}`. A running VM has
    them on its drive after `regenerate_cloud_init`. A password cannot be given: it would be in arguments and logs.
    """

    name = "cloud_init"
    row = Row.CLOUD_INIT
    user: str | None = option(text_of)
    keys: str | None = option(keys_of)
    addresses: Mapping[str, object] | None = option(addresses_of)
    nameserver: str | None = option(text_of)
    search_domain: str | None = option(text_of)
    upgrade: bool | None = option(flag_of)

    def options(self, fleet: Fleet, vm: Vm) -> Mapping[str, object]:
        named = {
            **{"ciuser": self.user, "sshkeys": self.keys, "nameserver": self.nameserver},
            **{"searchdomain": self.search_domain, "ciupgrade": self.upgrade},
        }
        return {**options_of(named), **(self.addresses or {})}


def _require_vm(vm: Vm) -> None:
    if vm.type is not GuestType.QEMU:
        raise Usage(f"{label(vm)} is a container, which has no cloud-init drive")


@dataclass(frozen=True)
class AddCloudInitDrive(Verb):
    """Give the VM a cloud-init drive, unless it has one; on its own storage unless another is named."""

    name = "cloud_init_drive"
    verb = "add a cloud-init drive to"
    device: str = option(text_of, "ide2")
    storage: str | None = option(text_of)

    def __post_init__(self) -> None:
        super().__post_init__()
        names.require_drive(self.device)

    def check(self, fleet: Fleet, vm: Vm) -> None:
        _require_vm(vm)

    def look(self, guest: Guest) -> Steps:
        seen = guest.ours
        if seen.config.has_cloudinit_drive:
            return nothing("it has a cloud-init drive")
        if self.device in seen.config.values:
            raise Usage(f"{guest.label}: {self.device} is taken; use another one such as ide2")
        place = guest.storage(self.storage)
        change = Change(self.device, "none", f"a cloud-init drive on {place}", f"{place}:cloudinit")
        waits = (self.device,) if of_change(seen, change) else ()
        return (Configure(seen.node, guest.vm.vmid, (change,), seen.config.digest, waits),)

    judge = waiting


@dataclass(frozen=True)
class RegenerateCloudInit(Verb):
    """Write the cloud-init drive anew where the options say something else than it."""

    name = "regenerate_cloud_init"
    verb = "write the cloud-init drive of"

    def check(self, fleet: Fleet, vm: Vm) -> None:
        _require_vm(vm)

    def look(self, guest: Guest) -> Steps:
        seen, vmid = guest.ours, guest.vm.vmid
        if not seen.config.has_cloudinit_drive:
            raise Usage(f"{guest.label} has no cloud-init drive; add one: `qm set {vmid} --ide2 STORAGE:cloudinit`")
        differs = guest.client.cloudinit_differs(seen.node, vmid)
        return (Regenerate(seen.node, vmid),) if differs else nothing("the drive says what the options say")
