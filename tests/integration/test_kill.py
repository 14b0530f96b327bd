"""Killed after any step and run again, provisioning ends as if nothing had happened."""

import itertools
import shlex
import subprocess
import sys

import pytest

from tests.integration.lab_driver import CHECKOUT, END, ROWS, Lab, provision_words, starts
from tests.integration.verified import assert_verified

pytestmark = pytest.mark.slow

KILL_ANYWHERE = CHECKOUT.parent / "shared/tools/kill-anywhere"


@pytest.mark.parametrize("row", ROWS)
def test_killed_after_a_step_and_run_again_it_ends_the_same(lab: Lab, row: str) -> None:
    following = dict(itertools.pairwise(ROWS)).get(row)
    lab.provision_until(starts(following) if following else lambda line: END in line)
    disk = lab.disk_id() if ROWS.index(row) >= ROWS.index("disko") else None

    again = lab.provision()

    assert_verified(lab)
    done = [name for name in ROWS[: ROWS.index(row) + 1] if name != "address"]  # looked up anew by every run
    assert [name for name in again.rows("No changes") if name in done] == done, again.output
    changes = lab.changes()
    for once in ("POST /nodes/prom/qemu/9002/clone", "PUT /nodes/prom/qemu/110/resize"):
        assert changes.count(once) == 1, changes
    assert changes.count("POST /nodes/prom/qemu/110/status/start") == 1, changes
    assert changes.count("PUT /nodes/prom/qemu/110/config") == 2, changes
    assert lab.boots() == ["disk", "installer", "disk"]
    assert disk in (None, lab.disk_id()), "disko ran again"


@pytest.mark.skipif(not KILL_ANYWHERE.exists(), reason="../shared/tools/kill-anywhere is not there")
def test_killed_at_any_moment_and_run_again_it_ends_the_same(lab: Lab) -> None:
    lab_command = f"{shlex.quote(sys.executable)} -m lab"
    verify = f"{shlex.quote(sys.executable)} -m tests.integration.verified"
    done = subprocess.run(
        [KILL_ANYWHERE, "--points", "3", "--random", "1", "--reset", f"{lab_command} reset", "--verify", verify]
        + ["--", *lab.argv("run", "--", "pyinfra", *provision_words("dev"))],
        cwd=CHECKOUT,
        env=lab.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.endswith("kill-anywhere: 3/3\n"), done.stdout + done.stderr
