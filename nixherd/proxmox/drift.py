"""How a documented guest differs from what people wrote down of it. It is shown; nothing is ever done about it."""

from collections.abc import Iterator, Mapping

from nixherd.fleet.models import Vm
from nixherd.proxmox.plan import ActualVm
from nixherd.proxmox.steps import Cannot, Drift, Step
from nixherd.sizes import format_size, parse_size


def drift(vm: Vm, node: str, actual: ActualVm | None) -> tuple[Step, ...]:
    """The differences between an imported guest's `specs` and reality; only what can be compared is.

    `specs` are free in form: a number of cores or MiB and a size are compared, "passthrough" is not.
    """
    if actual is None:
        why = f"documented as {vm.attribute}, not there"
        return (Cannot(node, vm.vmid, vm.name, why, "correct that", type=vm.type),)
    return tuple(Drift(actual.node, vm.vmid, *pair, type=vm.type) for pair in _pairs(vm, actual))


def _pairs(vm: Vm, actual: ActualVm) -> Iterator[tuple[str, str, str]]:
    specs, config = vm.specs, actual.config
    said = specs if isinstance(specs, Mapping) else {}
    numbers = {"cores": config.cores * config.sockets, "memory": config.memory}
    for key, found in numbers.items():
        documented = said.get(key)
        if isinstance(documented, int) and not isinstance(documented, bool) and found != documented:
            yield key, str(documented), "unknown" if found is None else str(found)
    disk = config.root or config.boot_disk
    size = _size(said.get("disk"))
    if size is not None and disk is not None and disk.size is not None and disk.size != size:
        yield "disk", format_size(size), format_size(disk.size)
    storage = said.get("storage")
    if isinstance(storage, str) and disk is not None and disk.storage != storage:
        yield "storage", storage, disk.storage
    status, running = vm.status, "running" if actual.running else "stopped"
    if status in ("running", "stopped") and status != running:
        yield "status", str(status), running


def _size(text: object) -> int | None:
    try:
        return parse_size(text) if isinstance(text, str) else None
    except ValueError:
        return None
