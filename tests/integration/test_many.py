"""Several machines in one run: all at once, each for itself, and few calls to their agents at a time."""

from collections.abc import Iterable, Mapping
from typing import Any

import pytest

from tests.integration.lab_driver import ROWS, Lab
from tests.integration.verified import assert_verified

pytestmark = pytest.mark.slow

MACHINES = {"dev": 110, "dev2": 111, "dev3": 112, "dev4": 113}


def most_in_flight(requests: Iterable[Mapping[str, Any]]) -> int:
    """How many of these requests the server had before it at once, at the worst moment."""
    events = []
    for request in requests:
        events += [(request["time"] - request["seconds"], 1), (request["time"], -1)]
    now = most = 0
    for _, change in sorted(events):
        now += change
        most = max(most, now)
    return most


def test_four_machines_at_once_and_again(lab: Lab) -> None:
    first = lab.provision("managed")
    for host, vmid in MACHINES.items():
        assert_verified(lab, host, vmid)
        assert lab.boots(vmid) == ["disk", "installer", "disk"]
    agents = [request for request in lab.requests() if "/agent/" in request["path"]]
    assert len({request["path"].split("/")[4] for request in agents}) == 4
    assert most_in_flight(agents) == 2, "as many as are allowed, and never more"
    keys = {(lab.kept / host / "ssh_host_ed25519_key.pub").read_text() for host in MACHINES}
    assert len(keys) == 4
    assert first.rows("Success").count("clone") == 4

    before = lab.changes()
    again = lab.provision("managed")
    assert lab.changes() == before
    assert sorted(again.rows("No changes")) == sorted([*ROWS] * 4)


def test_one_that_cannot_be_made_fails_alone(lab: Lab) -> None:
    lab.api_task("/nodes/prom/qemu", vmid=112, name="somebody", memory=512)
    theirs = lab.api("/nodes/prom/qemu/112/config")
    before = len(lab.changes())
    ended = lab.provision("managed", check=False)
    assert ended.status == 1
    assert [line for line in ended.says("dev3") if "vm 112 on prom exists but is not this fleet's: its name is" in line]
    for host, vmid in MACHINES.items():
        if host != "dev3":
            assert_verified(lab, host, vmid)
    assert not [change for change in lab.changes()[before:] if "/112" in change]
    assert lab.api("/nodes/prom/qemu/112/config") == theirs
