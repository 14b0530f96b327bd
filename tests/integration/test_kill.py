"""Killed after any step and run again, provisioning ends as if nothing had happened."""

import itertools
import shlex
import subprocess
import sys

import pytest

from tests.integration.lab_driver import CHECKOUT, END, ROWS, Lab, provision_words, rows_of, starts
from tests.integration.verified import assert_verified

pytestmark = pytest.mark.slow

KILL_ANYWHERE = CHECKOUT.parent / "shared/tools/kill-anywhere"


def test_killed_after_each_step_in_turn_it_ends_the_same(lab: Lab) -> None:
    """Each run is killed when it has done one step more than the one before, which it is not to do again."""
    disk = None
    for row, following in itertools.pairwise(ROWS):
        with lab.provisioning() as run:
            run.until(starts(following))
        _assert_passed_over(run.output, ROWS[: ROWS.index(row)])
        if row == "disko":
            disk = lab.disk_id()
    with lab.provisioning() as run:
        run.until(lambda line: END in line)
    _assert_passed_over(run.output, ROWS[:-1])

    again = lab.provision()

    assert_verified(lab)
    _assert_passed_over(again.output, ROWS)
    changes = lab.changes()
    for once in ("POST /nodes/prom/qemu/9002/clone", "PUT /nodes/prom/qemu/110/resize"):
        assert changes.count(once) == 1, changes
    assert changes.count("POST /nodes/prom/qemu/110/status/start") == 1, changes
    assert changes.count("PUT /nodes/prom/qemu/110/config") == 2, changes
    assert lab.boots() == ["disk", "installer", "disk"]
    assert disk == lab.disk_id(), "disko ran again"


def _assert_passed_over(output: str, rows: tuple[str, ...]) -> None:
    done = [name for name in rows if name != "address"]  # looked up anew by every run
    assert [name for name in rows_of(output, "No changes") if name in done] == done, output


@pytest.mark.skipif(not KILL_ANYWHERE.exists(), reason="../shared/tools/kill-anywhere is not there")
def test_killed_at_any_moment_and_run_again_it_ends_the_same(lab: Lab) -> None:
    lab_command = f"{shlex.quote(sys.executable)} -m lab"
    verify = f"{shlex.quote(sys.executable)} -m tests.integration.verified"
    command, environment = lab.inside("pyinfra", *provision_words("dev"))
    done = subprocess.run(
        [str(KILL_ANYWHERE), "--points", "2", "--random", "1", "--reset", f"{lab_command} reset", "--verify", verify]
        + ["--", *command],
        cwd=CHECKOUT,
        env=lab.preloaded(environment),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.endswith("kill-anywhere: 2/2\n"), done.stdout + done.stderr
