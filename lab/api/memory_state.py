"""The memory of a running VM in a snapshot: its own volume, and QEMU's settings beside the configuration."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lab.api import drives, options
from lab.api.resources import memory_bytes
from lab.api.volumes import Log, parse_volid

if TYPE_CHECKING:
    from lab.api.routes import Call
    from lab.api.state import Config, Vm

_DRIVER_BYTES = 500 << 20  # what the server reserves for devices, in addition to twice the memory
_HOST_MTU = "running-nets-host-mtu"
_OF_THE_STATE = ("vmstate", "runningmachine", "runningcpu", _HOST_MTU)


def save(
    call: "Call", vm: "Vm", name: str, log: Log, *, storage: str | None = None, quiet: bool = False
) -> dict[str, Any]:
    """Write the memory to a volume named after the snapshot. Returns its entries in the snapshot's configuration.

    `storage` is the target; the default is the VM's setting or the storage of its first disk. `quiet` logs nothing.
    """
    emulator = call.emulator
    place = emulator.volumes.storage(storage or _storage(vm))
    size = 2 * memory_bytes(vm) + _DRIVER_BYTES
    volid = emulator.volumes.allocate(place, vm.vmid, size, "raw", name=f"vm-{vm.vmid}-state-{name}", log=log)
    volume = emulator.volumes.get(volid)
    volume.size = volume.used = max(1, memory_bytes(vm) >> 7)  # the volume is truncated to what was written
    if not quiet:
        log(f"saving VM state and RAM using storage '{place.name}'")
        mebibytes = f"{volume.size / (1 << 20):.2f} MiB"
        log(f"{mebibytes} in 0s")
        log(f"completed saving the VM state in 0s, saved {mebibytes}")
    release = ".".join(emulator.state.qemu.split(".")[:2])
    family = "q35" if "q35" in str(vm.config.get("machine", "")) else "i440fx"
    cards = sorted(key for key in vm.config if options.is_network(key) and "virtio" in str(vm.config[key]))
    newest = emulator.state.version >= 9
    return {
        "vmstate": volid,
        "runningmachine": f"pc-{family}-{release}+pve{int(newest)}",
        "runningcpu": _running_cpu(vm),
        **({_HOST_MTU: ",".join(f"{card}=1500" for card in cards)} if newest and cards else {}),
    }


def _storage(vm: "Vm") -> str:
    """Return the storage for the memory: the VM's setting, otherwise that of its first disk."""
    if chosen := vm.config.get("vmstatestorage"):
        return str(chosen)
    disks = [drive["file"] for _, drive in drives.of(vm.config) if not drives.is_cdrom(drive)]
    return parse_volid(disks[0]).storage if disks else "local"


def _running_cpu(vm: "Vm") -> str:
    """Return the CPU argument that QEMU runs with; by default the server's, with its additions."""
    kind = str(vm.config.get("cpu", "kvm64")).split(",")[0].removeprefix("cputype=")
    added = "enforce,+kvm_pv_eoi,+kvm_pv_unhalt,+lahf_lm,+sep" if kind == "kvm64" else "+kvm_pv_eoi,+kvm_pv_unhalt"
    return f"{kind},{added}"


def load(config: Mapping[str, Any], log: Log) -> None:
    """Log what loading the memory logs."""
    for pair in str(config.get(_HOST_MTU) or "").split(","):
        card, _, mtu = pair.partition("=")
        if card:
            log(f"netdev {card}: using 'host_mtu={mtu}' for migration compat")


def without(config: "Config") -> "Config":
    """Return the VM's configuration without the entries for the snapshot's memory."""
    return {key: value for key, value in config.items() if key not in _OF_THE_STATE}
