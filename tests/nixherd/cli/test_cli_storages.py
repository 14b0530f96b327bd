"""Storages that are away, as people ask for them."""

import pytest

from tests.nixherd.cli.conftest import Nixherd
from tests.nixherd.proxmox.conftest import GIB, Emulator, granted

pytestmark = pytest.mark.xdist_group("emulator")

GONE = {"type": "dir", "path": "/mnt/gone", "content": "images,backup", "active": 0, "total": GIB, "avail": GIB}
LOCAL = {"type": "dir", "path": "/var/lib/vz", "content": "backup", "total": GIB, "avail": GIB}


def test_what_is_on_a_storage_that_is_away_is_not_known(nixherd: Nixherd, emulator: Emulator) -> None:
    far = {"type": "nfs", "path": "/mnt/pve/far", "content": "backup", "active": 0, "disable": "1"}
    emulator.control(
        "reset",
        patch={
            "acl": granted(("/storage", "PVEDatastoreUser")),
            "storages": {"gone": GONE, "far": far, "local": LOCAL},
        },
    )
    rows = {row["name"]: row for row in nixherd("storage").json}
    assert [rows["gone"][key] for key in ("active", "enabled", "total", "available")] == [False, True, None, None]
    assert (rows["far"]["enabled"], rows["local"]["active"]) == (False, True)
    found = nixherd("storage", "gone")
    assert (found.status, found.out) == (4, "")
    assert found.err == (
        "storage gone on prom is not active: not mounted, or its server does not answer; bring it up; "
        "what is on it is not known\n"
    )
    assert "storage far on prom is disabled; `pvesm set far --disable 0` on the node" in nixherd("storage", "far").err
    listed = nixherd("backups", "dev")
    assert (listed.status, listed.json) == (5, [])
    assert "storage gone on prom is not active" in listed.err
    assert "which backups it has is not known" in listed.err
    assert "far" not in listed.err  # somebody has switched it off: it is as good as not there
    assert nixherd("backups", "dev", "--storage", "local").status == 0
    assert nixherd("backups", "dev", "--storage", "nvmeprom").status == 4
