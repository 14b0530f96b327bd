"""What the emulator does when it is told that something goes wrong."""

import time
from pathlib import Path

import pytest

from lab.api.errors import ApiError, ParameterError
from tests.lab.api_node import Node, api_process, state_with

QEMU = "/nodes/prom/qemu/104"


def test_a_lock_goes_after_its_seconds() -> None:
    node = Node()
    node.emulator.faults.switch("lock-held", True, {"vmid": 104, "seconds": 1.5})
    assert node.config(104)["lock"] == "backup"
    time.sleep(1.55)
    assert "lock" not in node.config(104)


def test_a_killed_worker_leaves_what_it_held() -> None:
    node = Node()
    node.emulator.faults.switch("task-killed", True, {"type": "qmclone"})
    assert node.run("POST", "/nodes/prom/qemu/9002/clone", newid=110) == "unexpected status"
    assert node.config(110)["lock"] == "clone"
    assert node.run("POST", "/nodes/prom/qemu/9002/clone", newid=111) == "OK"


@pytest.mark.parametrize("works", [True, False, "0"])
def test_a_forgotten_task(works: object) -> None:
    node = Node()
    node.emulator.faults.switch("task-lost", True, {"type": "qmstop", "works": works})
    upid = node.call("POST", f"{QEMU}/status/stop")
    time.sleep(0.1)
    with pytest.raises(ParameterError) as unknown:
        node.get(f"/nodes/prom/tasks/{upid}/status")
    assert unknown.value.errors == {"upid": "no such task"}
    assert node.log(upid) == ["unable to open file - No such file or directory"]
    assert node.get("/nodes/prom/tasks") == []
    assert node.get(f"{QEMU}/status/current")["status"] == ("stopped" if works is True else "running")


def test_a_stranger_takes_the_vmid() -> None:
    node = Node()
    node.emulator.faults.switch("vmid-taken", True, {"vmid": 110})
    with pytest.raises(ApiError, match="unable to create VM 110: config file already exists"):
        node.call("POST", "/nodes/prom/qemu/9002/clone", {"newid": 110})
    assert node.config(110)["name"] == "stranger"


def test_a_full_storage_takes_nothing() -> None:
    node = Node()
    node.emulator.faults.switch("storage-full", True, {"storage": "nvme"})
    assert "reached threshold" in node.run("POST", "/nodes/prom/qemu/9002/clone", newid=110)
    assert 110 not in node.emulator.state.vms


def test_a_list_that_stands_still() -> None:
    node = Node()
    node.emulator.statistics.freeze(True)
    node.run("POST", f"{QEMU}/status/stop")
    rows = {row["vmid"]: row["status"] for row in node.get("/cluster/resources", type="vm")}
    assert rows[104] == "running"
    assert node.get(f"{QEMU}/status/current")["status"] == "stopped"


def test_how_far_long_tasks_are() -> None:
    node = Node(state_with(task_seconds={"qmclone": 0.2}))
    upid = node.call("POST", "/nodes/prom/qemu/9002/clone", {"newid": 110, "full": 1})
    assert node.ended(upid) == "OK"
    shares = [line.rpartition("(")[2] for line in node.log(upid) if line.startswith("transferred")]
    assert shares[:5] == ["0.00%)", "25.00%)", "50.00%)", "75.00%)", "100.00%)"]


@pytest.mark.process
def test_answers_that_say_less_than_was_done(tmp_path: Path) -> None:
    with api_process(tmp_path) as api:
        api.control("fault", name="refused", method="POST", path="status/stop", count=1)
        assert api.request("POST", f"{QEMU}/status/stop", {})[:2] == (595, "Connection refused")
        assert api.request("GET", f"{QEMU}/status/current")[2]["data"]["status"] == "running"
        api.control("fault", name="timed-out", method="POST", path="status/stop", count=1)
        assert api.request("POST", f"{QEMU}/status/stop", {})[:2] == (596, "Connection timed out")
        time.sleep(0.2)
        assert api.request("GET", f"{QEMU}/status/current")[2]["data"]["status"] == "stopped"
