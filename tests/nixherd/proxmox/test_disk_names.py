"""Which disk of a VM a device's name may mean."""

import pytest

from nixherd.proxmox.config import VmConfig
from nixherd.proxmox.guest.names import disks_of, kernel_names, meant
from nixherd.proxmox.steps import AddDisk

CONFIG = VmConfig(
    {
        "scsi0": "nvmeprom:vm-110-disk-0,size=64G",
        "scsi1": "nvmeprom:vm-110-disk-1,size=8G,serial=DATA1,wwn=0x5000c50015ea71aa",
        "virtio0": "nvmeprom:vm-110-disk-2,size=8G,serial=a-serial-of-more-than-20",
        "virtio1": "nvmeprom:vm-110-disk-3,size=8G",
        "ide2": "nvmeprom:vm-110-cloudinit,media=cdrom,size=4M",
        "efidisk0": "nvmeprom:vm-110-disk-4,efitype=4m,size=4M",
    }
)
DISKS = disks_of(CONFIG, [AddDisk("prom", 110, "scsi2", "tank", 1 << 30, "serial=NEW")])


@pytest.mark.parametrize(
    ("device", "disks"),
    [
        ("/dev/sda", {"scsi0", "scsi1", "scsi2"}),
        ("/dev/sdc", {"scsi0", "scsi1", "scsi2"}),
        ("/dev/sdd", set()),
        ("/dev/vdb", {"virtio0", "virtio1"}),
        ("/dev/vdc", set()),
        *((name, set()) for name in ("/dev/nvme0n1", "/dev/mmcblk0", "/dev/hda", "/dev/xvda")),
        ("/dev/disk/by-id/scsi-0QEMU_QEMU_HARDDISK_drive-scsi1", {"scsi1"}),
        ("/dev/disk/by-id/scsi-0QEMU_QEMU_HARDDISK_DATA1", {"scsi1"}),
        ("/dev/disk/by-id/scsi-SQEMU_QEMU_HARDDISK_NEW", {"scsi2"}),
        ("/dev/disk/by-id/scsi-0QEMU_QEMU_HARDDISK_drive-scsi3", set()),
        ("/dev/disk/by-id/scsi-0QEMU_QEMU_HARDDISK_drive-virtio0", set()),
        ("/dev/disk/by-id/wwn-0x5000c50015ea71aa", {"scsi1"}),
        ("/dev/disk/by-id/wwn-0x5000c50015ea71ab", set()),
        ("/dev/disk/by-id/virtio-a-serial-of-more-tha", {"virtio0"}),
        ("/dev/disk/by-id/virtio-vm-110-disk-3", set()),  # without a serial the link does not exist
        ("/dev/disk/by-id/ata-QEMU_HARDDISK_QM00005", set()),
        ("/dev/disk/by-id/nvme-Samsung_SSD_990", set()),
        ("/dev/disk/by-path/pci-0000:00:05.0-scsi-0:0:0:1", {"scsi0", "scsi1", "scsi2"}),
        ("/dev/disk/by-path/virtio-pci-0000:00:0a.0", {"virtio0", "virtio1"}),
        ("/dev/disk/by-path/pci-0000:00:1f.2-ata-1", set()),
        ("/dev/disk/by-path/pci-0000:01:00.0-nvme-1", set()),
        ("/dev/disk/by-path/platform-fe320000.mmc", set()),
        *((name, None) for name in ("/dev/disk/by-uuid/1-2", "/dev/disk/by-id/dm-name-x", "/dev/mapper/x", "/dev/md0")),
        ("/dev/disk/by-path/something", None),
    ],
)
def test_a_device_is_one_of_the_disks_none_or_unknown(device: str, disks: set[str] | None) -> None:
    assert meant(device, DISKS) == disks
    assert meant(device, DISKS, others=True) == (disks or None)


def test_a_scsi_disk_that_is_called_otherwise_is_not_judged() -> None:
    disks = disks_of(VmConfig({"scsi0": "nvmeprom:vm-110-disk-0,product=WDC_WD40,vendor=ATA,size=64G"}), ())
    assert meant("/dev/disk/by-id/scsi-0ATA_WDC_WD40_drive-scsi0", disks) is None
    assert meant("/dev/disk/by-id/virtio-x", disks) == frozenset()


def test_sata_disks_have_numbers_of_qemus() -> None:
    disks = disks_of(VmConfig({"sata0": "nvmeprom:vm-110-disk-0,size=64G"}), ())
    assert meant("/dev/disk/by-id/ata-QEMU_HARDDISK_QM00005", disks) == frozenset({"sata0"})
    assert meant("/dev/disk/by-path/pci-0000:00:1f.2-ata-1", disks) == frozenset({"sata0"})
    assert (meant("/dev/sda", disks), kernel_names("sata0", disks)) == (frozenset({"sata0"}), ["/dev/sda"])
