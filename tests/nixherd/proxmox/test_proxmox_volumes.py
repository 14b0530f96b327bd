"""What goes with a guest, and what a backup holds: pure."""

import pytest

from nixherd.fleet.models import GuestType
from nixherd.proxmox.belongings import belongings, owner
from nixherd.proxmox.config import VmConfig
from nixherd.proxmox.guest.archive import held

ARCHIVE = "local:backup/vzdump-qemu-111-2026_11_29-12_00_19.vma.zst"


@pytest.mark.parametrize(
    ("volume", "vmid"),
    [
        ("nvmeprom:vm-110-disk-0", 110),
        ("local:110/vm-110-disk-0.qcow2", 110),
        ("local:110/mine.raw", 110),
        ("local:9002/base-9002-disk-0.raw/110/vm-110-disk-0.qcow2", 110),
        ("tank:base-9002-disk-0/vm-110-disk-0", 110),
        ("tank:base-9002-disk-0", 9002),
        ("tank:subvol-210-disk-0", 210),
        ("tank:basevol-9002-disk-0/subvol-210-disk-0", 210),
        ("nvmeprom:vm-110-state-suspend-2026-11-29", 110),
        ("linstor:pm-1a2b3c4d_110", None),
        ("iscsi1:0.0.1.scsi-36001405", None),
    ],
)
def test_whose_a_volume_is(volume: str, vmid: int | None) -> None:
    assert owner(volume) == vmid


def test_a_volume_whose_owner_nobody_can_tell_counts_as_the_guests() -> None:
    config = VmConfig({"scsi0": "linstor:pm-1a2b3c4d_110,size=8G", "scsi1": "iscsi1:0.0.1.scsi-36001405,backup=0"})
    found = belongings(GuestType.QEMU, 110, config)
    assert [(part.name, part.unsaved) for part in found.parts] == [("scsi0", ""), ("scsi1", "backup=0")]


# A log and an archive of a real server: scsi1 has backup=0.
CONFIG = """agent: 1
boot: order=scsi0
scsi0: nvmeprom:111/vm-111-disk-0.qcow2,size=1G
scsi1: tank:111/vm-111-disk-0.qcow2,backup=0,size=1G
#qmdump#map:scsi0:drive-scsi0:nvmeprom:qcow2:
"""
LOG = (
    "INFO: starting new backup job: vzdump 111 --node prom --notes-template 'a\\nb' --storage local --remove 0",
    "INFO: include disk 'scsi0' 'nvmeprom:111/vm-111-disk-0.qcow2' 1G",
    "INFO: exclude disk 'scsi1' 'tank:111/vm-111-disk-0.qcow2' (backup=no)",
    "INFO: creating vzdump archive '/var/lib/vz/dump/vzdump-qemu-111-2026_11_29-12_00_19.vma.zst'",
)


def test_what_a_backup_holds_is_what_log_and_archive_say() -> None:
    found = held(ARCHIVE, CONFIG, LOG, GuestType.QEMU)
    assert found.why_not("nvmeprom:111/vm-111-disk-0.qcow2") == ""
    assert found.why_not("tank:111/vm-111-disk-0.qcow2") == "not in it"
    assert found.why_not(None) == "not in it"  # what a snapshot keeps


@pytest.mark.parametrize(
    ("config", "log"),
    [
        (CONFIG, LOG[:1]),  # a log of which nothing can be told
        (CONFIG.replace("#qmdump#map:scsi0:drive-scsi0:nvmeprom:qcow2:\n", ""), LOG),
        (CONFIG.replace("scsi0: nvmeprom:111/", "scsi0: nvmeprom:112/"), LOG),  # another volume under that name
        ("", LOG),
        ("# #qmdump#map:scsi0:drive-scsi0:nvmeprom:qcow2:\n", LOG),
    ],
)
def test_where_they_differ_it_is_not_known(config: str, log: tuple[str, ...]) -> None:
    found = held(ARCHIVE, config, log, GuestType.QEMU)
    assert "its log and the archive do not say the same of scsi0" in found.why_not("nvmeprom:111/vm-111-disk-0.qcow2")


def test_an_archive_of_a_container_says_so_by_its_mount_points() -> None:
    config = (
        "rootfs: tank:subvol-210-disk-0,size=4G\nmp0: tank:subvol-210-disk-1,mp=/data,backup=1\n"
        "mp1: tank:subvol-210-disk-2,mp=/x\nmp2: /srv/media,mp=/media,backup=1\n"
    )
    log = (
        "INFO: including mount point rootfs ('/') in backup",
        "INFO: including mount point mp0 ('/data') in backup",
        "INFO: excluding volume mount point mp1 ('/x') from backup (disabled)",
        "INFO: excluding bind mount point mp2 ('/media') from backup (not a volume)",
    )
    found = held("local:backup/x", config, log, GuestType.LXC)
    assert (found.volumes, found.unknown) == (frozenset({"tank:subvol-210-disk-0", "tank:subvol-210-disk-1"}), "")
    assert "of mp0" in held("local:backup/x", config, log[:1], GuestType.LXC).unknown
