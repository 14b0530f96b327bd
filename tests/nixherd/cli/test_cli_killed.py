"""`nixherd vm restore` killed at any moment and run again: it ends as if nothing had happened."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.nixherd.cli.conftest import Nixherd
from tests.nixherd.cli.restore_ends import ARCHIVE
from tests.nixherd.proxmox.conftest import ROOT, Emulator

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("emulator")]

KILL_ANYWHERE = ROOT.parent / "shared/tools/kill-anywhere"
POINTS = os.environ.get("KILL_POINTS", "1")  # by hand 20


@pytest.mark.skipif(not KILL_ANYWHERE.exists(), reason="../shared/tools/kill-anywhere is not there")
@pytest.mark.parametrize("case", ["absent", "there"])
def test_a_restore_is_killed_at_any_moment(nixherd: Nixherd, emulator: Emulator, tmp_path: Path, case: str) -> None:
    python = shlex.quote(sys.executable)
    about = f"{case} {emulator.port} {emulator.fingerprint}"
    ends = f"{python} -m tests.nixherd.cli.restore_ends"
    over = ["--overwrite"] if case == "there" else []
    command = [
        sys.executable,
        "-c",
        "from nixherd.cli.main import main; main()",
        "vm",
        "restore",
        "dev",
        ARCHIVE,
        *over,
    ]
    done = subprocess.run(
        [KILL_ANYWHERE, "--points", POINTS, "--reset", f"{ends} reset {about}", "--verify", f"{ends} verify {about}"]
        + ["--", *command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.endswith(f"kill-anywhere: {POINTS}/{POINTS}\n"), done.stdout + done.stderr
