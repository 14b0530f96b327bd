"""Whatever goes wrong on the way, a run ends well or with one clear line at its deadline; run again it ends well."""

import re

import pytest

from tests.integration.lab_driver import Ended, Lab, starts
from tests.integration.verified import assert_verified

pytestmark = pytest.mark.slow

CLONE = "POST /nodes/prom/qemu/9002/clone"
START = "POST /nodes/prom/qemu/110/status/start"


def complaint(ended: Ended, host: str = "dev") -> str:
    """The last line said of a host whose run failed. Fails where that is a traceback or the run ended well."""
    assert ended.status in (1, 4), ended.output
    assert "Traceback" not in ended.output, ended.output
    return ended.says(host)[-2] if ended.says(host)[-1].startswith("Error: ") else ended.says(host)[-1]


def test_every_address_changes_at_every_hop(lab: Lab) -> None:
    lab.fault("address-changes")
    output = lab.provision().output
    assert_verified(lab)
    hops = ("the fresh clone", "the installer", "the installed system")
    found = [re.search(rf"{hop} answers at (\S+)", output) for hop in hops]
    addresses = [hop[1] for hop in found if hop]
    assert len(set(addresses)) == 3, output


def test_an_address_that_moves_under_a_running_job(lab: Lab) -> None:
    with lab.provisioning() as run:
        run.until(starts("disko"))
        lab.fault("address-moves")
        ended = run.end()
    assert ended.status == 0, ended.output
    assert_verified(lab)


def test_a_silent_agent_ends_the_run_at_its_deadline(lab: Lab) -> None:
    lab.fault("agent-silent", vmid=110)
    ended = lab.provision("dev", "--data", "boot_deadline=5", check=False)
    assert complaint(ended).startswith("dev: waiting for clone or installer or final: not within 5 s; last: ")
    assert "agent" in complaint(ended)
    assert ended.seconds < 90
    config = lab.api("/nodes/prom/qemu/110/config")
    assert (config["cores"], lab.api("/nodes/prom/qemu/110/status/current")["status"]) == (4, "running")

    lab.fault("agent-silent", on=False)
    before = len(lab.changes())
    lab.provision()
    assert_verified(lab)
    assert not {CLONE, START} & set(lab.changes()[before:])


def test_a_lock_that_another_holds_is_waited_for(lab: Lab) -> None:
    lab.provision_until(starts("configure"))
    lab.outside("set-lock", vmid=110, lock="backup")
    ended = lab.provision("dev", "--data", "task_deadline=3", check=False)
    assert "vm 110 (dev): configure: not within 3 s: vm 110 (dev) is locked (backup)" in complaint(ended)
    assert ended.seconds < 90
    assert lab.api("/nodes/prom/qemu/110/config")["cores"] == 2

    with lab.provisioning() as run:
        run.until(lambda line: "vm 110 (dev) is locked (backup)" in line)
        lab.outside("clear-lock", vmid=110)
        ended = run.end()
    assert ended.status == 0, ended.output
    assert_verified(lab)


def test_tasks_that_fail_after_their_200(lab: Lab) -> None:
    for kind in ("qmclone", "resize", "qmstart"):
        lab.fault("task-fails", type=kind, message=f"{kind}: no space left on device")
        ended = lab.provision(check=False)
        assert f"failed: {kind}: no space left on device" in complaint(ended), ended.output
        assert ended.seconds < 90
    lab.provision()
    assert_verified(lab)
    assert lab.changes().count(CLONE) == 2


@pytest.mark.parametrize(("method", "path", "count"), [("POST", "/clone$|/start$", 2), ("PUT", "/config$|/resize$", 3)])
def test_answers_that_are_lost(lab: Lab, method: str, path: str, count: int) -> None:
    lab.fault("drop-connection", method=method, path=path, count=count)
    lab.provision()
    assert_verified(lab)
    lost = [entry for entry in lab.requests() if entry["status"] == 0]
    assert len(lost) == count, lost
    assert lab.changes().count(CLONE) == lab.changes().count(START) == 1


@pytest.mark.parametrize(("row", "waited"), [("installer", "installer"), ("reboot", "final")])
def test_a_machine_that_does_not_come_back(lab: Lab, row: str, waited: str) -> None:
    with lab.provisioning("dev", "--data", "boot_deadline=5") as run:
        run.until(starts(row))
        lab.fault("no-return", vmid=110)
        ended = run.end()
    assert complaint(ended).startswith(f"dev: waiting for {waited}: not within 5 s; last: ")
    assert ended.seconds < 90

    lab.fault("no-return", on=False)
    lab.api_task("/nodes/prom/qemu/110/status/stop")
    lab.api_task("/nodes/prom/qemu/110/status/start")
    lab.provision()
    assert_verified(lab)
