"""Between looking and removing: what appears or changes meanwhile is not destroyed."""

from typing import Any

import pytest

from nixherd.base.errors import Refused
from nixherd.proxmox.guest.destroy import DestroyGuest
from tests.nixherd.proxmox.destroy_forms.conftest import CLOUD_INIT, DISK, between, guest
from tests.nixherd.proxmox.fleets import DEV, FLEET
from tests.nixherd.proxmox.inprocess import WHO, InProcess, images


def attach(api: InProcess, key: str = "scsi5", value: str = "nvmeprom:8") -> Any:
    return lambda: api.node.call("PUT", "/nodes/prom/qemu/110/config", {key: value})


@pytest.mark.parametrize("moment", [("POST", "/vzdump"), ("GET", "/vzdump/extractconfig"), ("PUT", "/config")])
@pytest.mark.parametrize("backup", [True, False])
def test_a_disk_that_appears_is_not_destroyed(moment: tuple[str, str], backup: bool) -> None:
    if not backup and moment[0] != "PUT":
        return
    api = guest()
    between(api, *moment, attach(api))
    with pytest.raises(
        Refused, match=r"changed since it was looked at; there is now scsi5 nvmeprom:vm-110-disk-1 \(8G\)"
    ):
        DestroyGuest("dev", 110, backup=backup).run(api.client, FLEET, DEV, timeout=20)
    assert images(api.node) == {DISK, CLOUD_INIT, "nvmeprom:vm-110-disk-1"}
    assert "nixherd destroys" not in api.node.config(110)["description"]


def test_a_snapshot_that_appears_is_not_destroyed() -> None:
    api = guest()
    between(api, "PUT", "/config", lambda: api.node.run("POST", "/nodes/prom/qemu/110/snapshot", snapname="mine"))
    with pytest.raises(Refused, match="there is now snapshot:mine; not destroyed"):
        DestroyGuest("dev", 110).run(api.client, FLEET, DEV, timeout=20)
    assert DISK in images(api.node)


def test_a_guest_that_ran_after_its_backup_is_not_destroyed() -> None:
    api = guest()

    def used() -> None:
        for verb in ("start", "stop"):
            assert api.node.run("POST", f"/nodes/prom/qemu/110/status/{verb}", WHO) == "OK"

    between(api, "PUT", "/config", used)
    with pytest.raises(Refused, match=r"nixherd@pve\!fleet did qmst\w+ since it was seen"):
        DestroyGuest("dev", 110).run(api.client, FLEET, DEV, timeout=20)
    assert DISK in images(api.node)
