"""What is destroyed with a guest, in every form in which a configuration names it."""

from dataclasses import replace
from typing import Any

import pytest

from nixherd.base.errors import Usage
from nixherd.fleet.models import Device
from nixherd.proxmox.guest.destroy import DestroyGuest
from tests.nixherd.proxmox.destroy_forms.conftest import (
    CLOUD_INIT,
    DISK,
    DNS,
    FILE,
    LEFT_OUT,
    SECOND,
    STATE,
    container,
    destroy,
    guest,
    refused,
)
from tests.nixherd.proxmox.fleets import DEV, FLEET
from tests.nixherd.proxmox.inprocess import archives, images


@pytest.mark.parametrize("name", LEFT_OUT)
def test_what_a_backup_leaves_out_goes_only_by_name(name: str) -> None:
    volumes, options, words = LEFT_OUT[name]
    refused(
        guest(*volumes, **options),
        rf"a backup does not hold {words}; not destroyed: .*name what may go: --discard {name}$",
    )
    for wide in (True, False):
        api = guest(*volumes, wide=wide, **options)
        done = destroy(api, name)
        assert f"; given up: {name}; " in str(done)
        assert "; backup: local:backup/vzdump-qemu-110-" in str(done)
        assert set(volumes) <= done.belongings.volumes
        # a volume that nothing but a snapshot names is left where it is; rights of the pool have gone with the guest
        left = {SECOND} if name == "snapshot:old" else set()
        assert images(api.node) == left == set(done.left if wide else done.unseen)
        said = "left on the storage" if wide else "perhaps left on the storage, where this token no longer sees it"
        assert all(f"; {said}: {volume}" in str(done) for volume in left)


def test_what_a_backup_holds_needs_no_name() -> None:
    more: dict[str, Any] = {
        "efidisk0": f"{SECOND},size=4M",
        "bios": "ovmf",
        "tpmstate0": "nvmeprom:vm-110-disk-2,size=4M",
    }
    api = guest(SECOND, FILE, "nvmeprom:vm-110-disk-2", virtio1=f"{FILE},size=8G,backup=1", **more)
    done = destroy(api)
    assert images(api.node) == set()
    [archive] = archives(api.node).values()
    assert set(archive["disks"]) == {"scsi0", "virtio1", "efidisk0", "tpmstate0"}
    assert done.belongings.names == ("efidisk0", "ide2", "scsi0", "tpmstate0", "virtio1")
    assert "given up" not in str(done)


def test_the_request_says_that_what_nothing_names_stays() -> None:
    orphan, foreign = "nvmeprom:vm-110-disk-9", "nvmeprom:vm-104-disk-0"
    iso = "local:iso/debian.iso"
    more: dict[str, Any] = {
        "ide0": f"{iso},media=cdrom,size=600M",
        "scsi3": f"{foreign},size=8G",
        "scsi4": "/dev/sdx,backup=0",
    }
    api = guest(orphan, foreign, iso, FILE, sata0=f"{FILE},media=cdrom", **more)
    done = destroy(api)
    assert images(api.node) == {orphan, foreign, iso, FILE}
    assert (
        f"; stays: ide0 {iso} (no guest's), sata0 {FILE} (a CD-ROM), scsi3 {foreign} (of guest 104), "
        f"scsi4 /dev/sdx (a device or file of the node), {orphan} (in its name, and nothing names it); "
    ) in str(done)
    [request] = [each for each in api.sent if each.startswith("DELETE")]
    assert request == "DELETE /nodes/prom/qemu/110"
    assert api.params["DELETE /nodes/prom/qemu/110"] == {"destroy-unreferenced-disks": "0"}


def test_without_a_backup_all_is_given_up_and_listed() -> None:
    volumes, options, _ = LEFT_OUT["snapshot:clean"]
    api = guest(*volumes, SECOND, scsi1=f"{SECOND},backup=0,size=8G", **options)
    done = destroy(api, backup=False)
    assert images(api.node) == set()
    assert archives(api.node) == {}
    assert str(done).endswith("; no backup is made, all of it is given up")
    for volume in (DISK, SECOND, STATE, CLOUD_INIT):
        assert volume in str(done)


def test_a_name_that_is_not_there_is_an_error() -> None:
    api = guest(SECOND, unused0=SECOND)
    for wrong in ("net0", SECOND, ""):
        with pytest.raises(Usage, match=r"is not a disk that a VM can have"):
            DestroyGuest("dev", 110, discard=("unused0", wrong)).run(api.client, FLEET, DEV)
    assert api.sent == []
    for wrong in ("scsi1", "snapshot:unused0", "unused1"):
        with pytest.raises(
            Usage, match=rf"--discard {wrong}: vm 110 \(dev\) has no {wrong}; with it would go ide2, scsi0"
        ):
            DestroyGuest("dev", 110, discard=("unused0", wrong)).run(api.client, FLEET, DEV)
    assert api.changes() == []


def test_what_is_suspended_to_disk() -> None:
    """No backup of it can be made, and nobody can write into its notes; it cannot be changed meanwhile either."""
    options: dict[str, Any] = {"lock": "suspended", "vmstate": STATE}
    refused(guest(STATE, **options), "is suspended to disk, so that no backup can be made")
    refused(guest(STATE, **options), "is suspended to disk, so that no backup can be made", "vmstate")
    api = guest(STATE, **options)
    assert f"vmstate {STATE} (8G, saved memory)" in str(destroy(api, backup=False))
    assert images(api.node) == set()


def test_containers() -> None:
    saved, lost, unused = (f"nvmeprom:vm-210-disk-{number}" for number in (1, 2, 3))
    options: dict[str, Any] = {
        **{"mp0": f"{saved},mp=/data,backup=1,size=8G", "mp1": f"{lost},mp=/scratch,size=8G", "unused0": unused},
        **{"mp2": "/srv/media,mp=/media", "lxc": [["lxc.mount.entry", "/srv/x srv/x none bind 0 0"]]},
    }
    words = rf"ct 210 \(dns\) .*mp1 {lost} \(8G, without backup=1\), unused0 {unused} \(8G, unused\); not destroyed"
    refused(container(saved, lost, unused, **options), words, vm=DNS)
    refused(container(saved, lost, unused, **options), r"name what may go: --discard unused0$", "mp1", vm=DNS)
    api = container(saved, lost, unused, **options)
    done = destroy(api, "mp1", "unused0", vm=DNS)
    assert "; given up: mp1, unused0; stays: mp2 /srv/media (a directory of the node), lxc.mount.entry /srv/x" in str(
        done
    )
    assert images(api.node) == set()
    [archive] = archives(api.node).values()
    assert set(archive["disks"]) == {"rootfs", "mp0"}


@pytest.mark.parametrize("attribute", ["hwaddr", "macaddr"])
def test_a_container_with_another_card_than_the_declared_one_is_another_machine(attribute: str) -> None:
    card = Device("net0", {attribute: "BC:24:11:00:00:99"})
    other = replace(DNS, settings=replace(DNS.settings, networks=(card,)))
    refused(container(), "has net0 bc:24:11:00:02:10, managed.dns declares bc:24:11:00:00:99: it is another", vm=other)


def test_the_snapshots_of_a_container() -> None:
    about = {"snapshots": {"clean": {"config": {"rootfs": "nvmeprom:vm-210-disk-0,size=4G"}}}}
    refused(container(about=about), "--discard snapshot:clean", vm=DNS)
    destroy(container(about=about), "snapshot:clean", vm=DNS)
