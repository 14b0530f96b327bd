"""What a running VM takes over at once, and what it answers when that fails."""

from typing import TYPE_CHECKING, Any

from lab.api import drives, options
from lab.api.formats import split_list
from lab.api.state import Vm

if TYPE_CHECKING:
    from lab.api.routes import Call

_DEFAULT = "network,disk,usb"
# What of a drive that stays the same volume is taken up at the next start only.
_DRIVE_WAITS = ("aio", "cache", "discard", "iothread", "queues", "ro", "ssd")
# What of a network card can be changed while it stays plugged in.
_CARD_STAYS = ("bridge", "firewall", "link_down", "rate", "tag", "trunks")


def features(vm: Vm) -> set[str]:
    """The kinds of devices that may be plugged in and out while the VM runs."""
    chosen = str(vm.config.get("hotplug", "1"))
    return set() if chosen == "0" else set(split_list(_DEFAULT if chosen == "1" else chosen))


def at_once(call: "Call", vm: Vm, name: str, value: Any) -> bool:
    """Is it tried to take the value over while the VM runs? None: that the option goes."""
    if name in options.IMMEDIATE or options.is_cloudinit(name) or options.is_unused(name):
        return True
    if name == "balloon":  # the device itself cannot be plugged in or out
        return (str(vm.config.get(name, 1)) != "0") == (value is None or str(value) != "0")
    if options.is_network(name):
        return "network" in features(vm)
    if drives.is_drive(name):
        return _drive_at_once(vm, name, value)
    return False


def _drive_at_once(vm: Vm, name: str, value: Any) -> bool:
    before = drives.parse(str(vm.config[name])) if name in vm.config else None
    after = drives.parse(str(value)) if value is not None else None
    if before and after and drives.is_cdrom(before) and drives.is_cdrom(after):
        return True
    if before and after and before["file"] == after["file"]:
        return all(before.get(key) == after.get(key) for key in _DRIVE_WAITS)
    return name.startswith(("scsi", "virtio")) and "disk" in features(vm)


def failure(call: "Call", vm: Vm, name: str, value: Any) -> str | None:
    """Why taking the value over fails; None where it does not."""
    if value is None or not options.is_network(name):
        return None
    card = options.network(call, name, value)
    bridges, bridge = call.emulator.state.nodes[vm.node].get("bridges"), card.get("bridge")
    if not bridge or bridges is None or bridge in bridges:
        return None
    before = options.network(call, name, str(vm.config[name])) if name in vm.config else {}
    if before and all(before.get(key) == card.get(key) for key in before.keys() | card if key not in _CARD_STAYS):
        return f"interface {bridge} does not exist"
    folder = "/usr/libexec/qemu-server" if call.emulator.state.version >= 9 else "/var/lib/qemu-server"
    script = f"network script {folder}/pve-bridge-hotplug failed with status 512"
    return f"VM {vm.vmid} qmp command 'netdev_add' failed - {script}"
