"""A VM made from its definition alone, without a template: empty disks, for an installer from the network or an ISO."""

from nixherd.errors import FleetError
from nixherd.fleet.models import Fleet, Host, Vm
from nixherd.fleet.settings import Device
from nixherd.proxmox import differences
from nixherd.proxmox.identity import marked
from nixherd.proxmox.models import VmConfig
from nixherd.proxmox.policy import DEFINITIONS
from nixherd.proxmox.steps import Create, sent

GIB = 1 << 30
BOOT_DISK = "scsi0"
_CARD = Device("net0", {"model": "virtio", "bridge": "vmbr0"})


def empty_vm(fleet: Fleet, vm: Vm, host: Host) -> Create:
    """The VM's making. FleetError when its definition does not say how large it is, and where.

    Its options are those that a VM without any would differ in: the same comparison that keeps it as declared.
    """
    storage = fleet.storage_of(vm)
    if vm.disk is None or storage is None:
        raise FleetError(f"{vm.attribute} in {DEFINITIONS} declares no {'storage' if vm.disk else 'disk'}; add it")
    cards = () if any(card.name == "net0" for card in vm.settings.networks) else (_CARD,)
    changes = list(differences.options(fleet, vm, VmConfig(), None))
    changes += [change for card in cards for change in differences.device_changes(card, VmConfig())]
    values: dict[str, object] = {
        "name": vm.name,
        "description": marked(fleet, vm, vm.settings.description or ""),
        "ostype": "l26",
        "scsihw": "virtio-scsi-single",
        BOOT_DISK: f"{storage}:{whole_gib(vm.disk)}",
        "ide2": f"{storage}:cloudinit",
        "boot": f"order={BOOT_DISK};net0",
        "pool": vm.settings.pool,
        **_firmware(vm, storage),
        **{disk.name: volume(disk, storage) for disk in vm.settings.disks},
        **sent(changes),
        **sent(differences.cloud_init(vm, host, VmConfig({"ide2": f"{storage}:cloudinit,media=cdrom"}))),
    }
    return Create(fleet.node_of(vm), vm.vmid, vm.name, {key: each for key, each in values.items() if each is not None})


def whole_gib(size: int) -> int:
    """The API makes volumes of whole GiB; what is more is rounded up."""
    return -(-size // GIB)


def volume(disk: Device, storage: str | None) -> str:
    """A new, empty volume as the API takes it: `tank:100,ssd=1`."""
    assert disk.size is not None
    rest = "".join(f",{key}={value}" for key, value in disk.values.items())
    return f"{disk.storage or storage}:{whole_gib(disk.size)}{rest}"


def _firmware(vm: Vm, storage: str) -> dict[str, object]:
    """OVMF keeps its variables on a disk; without Secure Boot's keys, which would stop an unsigned boot loader."""
    if vm.settings.bios != "ovmf":
        return {"bios": vm.settings.bios}
    return {"bios": "ovmf", "efidisk0": f"{storage}:1,efitype=4m,pre-enrolled-keys=0"}
