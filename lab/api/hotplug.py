"""Which values a running VM applies at once, and the errors when that fails."""

from typing import TYPE_CHECKING, Any

from lab.api import drives, options
from lab.api.formats import split_list
from lab.api.state import Vm

if TYPE_CHECKING:
    from lab.api.routes import Call

_DEFAULT = "network,disk,usb"
# Properties of a drive that, on the same volume, only take effect at the next start.
_DRIVE_WAITS = ("aio", "cache", "discard", "iothread", "queues", "ro", "ssd")
# Properties of a network card that can change while it stays plugged in.
_CARD_STAYS = ("bridge", "firewall", "link_down", "rate", "tag", "trunks")


def features(vm: Vm) -> set[str]:
    """Return the kinds of devices that can be hotplugged."""
    chosen = str(vm.config.get("hotplug", "1"))
    return set() if chosen == "0" else set(split_list(_DEFAULT if chosen == "1" else chosen))


def at_once(call: "Call", vm: Vm, name: str, value: Any) -> bool:
    """Return whether the running VM tries to apply the value at once. None: the option is removed."""
    if name in options.IMMEDIATE or options.is_cloudinit(name) or options.is_unused(name):
        return True
    if name == "balloon":  # the device itself cannot be hotplugged
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
    """Return why applying the value fails, or None."""
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
