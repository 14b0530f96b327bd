"""Where a new guest finds its place: a VMID that nobody has, and the template that it is to be cloned from."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from nixherd.errors import Usage
from nixherd.fleet.models import Fleet, GuestType
from nixherd.fleet.validate import DEFINITIONS, ONLY_FOR
from nixherd.proxmox.config import VmConfig
from nixherd.proxmox.guest import names
from nixherd.proxmox.guest.identity import next_vmid, range_of
from nixherd.proxmox.guest.observe import template_or_why
from nixherd.proxmox.guest.plan import template_node
from nixherd.trust.new.host import Machine

if TYPE_CHECKING:
    from nixherd.proxmox.client import Client

_BIOS = ("ovmf", "seabios")


def usual_range(fleet: Fleet, kind: GuestType) -> str | None:
    """The range that guests of this kind are in: the one for them alone, else the first for any; None without any."""
    names = [each.name for each in fleet.ranges]
    own = [name for name in names if ONLY_FOR.get(name) is kind]
    return next((name for name in (*own, *(name for name in names if name not in ONLY_FOR))), None)


def next_free(fleet: Fleet, client: "Client | None", span: str) -> tuple[int, bool | None]:
    """The lowest VMID of a range that nobody has, and whether the hypervisor says so (None: nobody asked it).

    Usage when there is none.
    """
    if client is not None:
        return next_vmid(client, fleet, span), True
    declared = {vm.vmid for vm in fleet.vms.values()} | ({fleet.template.vmid} if fleet.template else set())
    found = range_of(fleet, span)
    for vmid in range(found.start, found.end + 1):
        if vmid not in declared:
            return vmid, None
    raise Usage(f"no VMID of {span} ({found.start} to {found.end}) is undeclared; widen the range, or name another one")


def require_free(client: "Client | None", vmid: int) -> bool | None:
    """Whether nobody has this VMID, None where the hypervisor was not asked. Usage when somebody has it."""
    if client is None:
        return None
    row = next((row for row in client.resources() if row.vmid == vmid), None)
    if row is not None:
        raise Usage(
            f"--vmid {vmid}: {row.name or 'a guest'} on {row.node} has it; take another one (nixherd vm next-id)"
        )
    if not client.is_free(vmid):
        raise Usage(f"--vmid {vmid}: a guest that this token may not see has it; take another one (nixherd vm next-id)")
    return True


def machine(fleet: Fleet, client: "Client | None") -> Machine:
    """The firmware and the disk that a clone of the fleet's template has: as the hypervisor says, else the definitions.

    Where neither says, what the template is made with (`nixherd template create`).
    """
    if fleet.template is None:
        return Machine()
    if client is not None and fleet.endpoint is not None:
        config, _ = template_or_why(client, fleet)
        if config is not None:
            return _seen(config, f"template {fleet.template.vmid} on {template_node(fleet)}")
    specs = fleet.template.extra.get("specs")
    specs = specs if isinstance(specs, Mapping) else {}
    bios = fleet.template.bios or _one_of(specs.get("bios"), _BIOS)
    disk = specs.get("disk") if isinstance(specs.get("disk"), str) else None
    device = (
        _device(disk, {disk: {}}) if disk and disk.rstrip("0123456789") in ("scsi", "sata", "ide", "virtio") else None
    )
    told = f"{DEFINITIONS}: template" if bios else None
    return Machine(bios or Machine().firmware, device or Machine().device, told)


def _seen(config: VmConfig, where: str) -> Machine:
    disk = config.boot_disk
    device = _device(disk.name, names.disks_of(config, ())) if disk else Machine().device
    return Machine(config.bios, device, where)


def _device(disk: str, disks: names.Disks) -> str:
    return names.kernel_names(disk, disks)[0]


def _one_of(value: Any, words: tuple[str, ...]) -> str | None:
    return value if value in words else None
