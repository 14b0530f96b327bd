"""Commands killed at any moment and run again: they end as if nothing had happened."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.nixherd.cli.conftest import Nixherd
from tests.nixherd.cli.killed_ends import WORDS
from tests.nixherd.cli.restore_ends import ARCHIVE
from tests.nixherd.cli.test_cli_retiring import fleet as retiring  # noqa: F401  (fixture)
from tests.nixherd.proxmox.conftest import ROOT, Emulator
from tests.preloaded.programs import Programs

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("emulator")]

KILL_ANYWHERE = ROOT.parent / "shared/tools/kill-anywhere"
POINTS = os.environ.get("KILL_POINTS", "1")  # by hand 20


pytestmark.append(pytest.mark.skipif(not KILL_ANYWHERE.exists(), reason="../shared/tools/kill-anywhere is not there"))


def killed(programs: Programs, ends: str, about: str, words: list[str]) -> None:
    """Kill the command at POINTS moments, each from the start state, run it again, and look what is there."""
    program = f"nixherd-python -m tests.nixherd.cli.{ends}"
    done = subprocess.run(
        [str(KILL_ANYWHERE), "--points", POINTS, "--reset", f"{program} reset {about}"]
        + ["--verify", f"{program} verify {about}", "--", "nixherd", *words],
        cwd=ROOT,
        env=programs(dict(os.environ)),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.endswith(f"kill-anywhere: {POINTS}/{POINTS}\n"), done.stdout + done.stderr


@pytest.mark.parametrize("case", ["absent", "there"])
def test_a_restore_is_killed_at_any_moment(nixherd: Nixherd, programs: Programs, emulator: Emulator, case: str) -> None:
    over = ["--overwrite"] if case == "there" else []
    about = f"{case} {emulator.port} {emulator.fingerprint}"
    killed(programs, "restore_ends", about, ["vm", "restore", "dev", ARCHIVE, *over])


def test_a_retirement_is_killed_at_any_moment(retiring: Path, programs: Programs, emulator: Emulator) -> None:  # noqa: F811
    """Also between the guest's end and the commit."""
    shutil.copytree(retiring, f"{retiring}.original")
    about = f"{retiring} {retiring}.original {emulator.port} {emulator.fingerprint}"
    words = ["--fleet", str(retiring), "retire", "dev", "--destroy", "110", "--stop", "--remove-secrets", "--yes"]
    killed(programs, "retire_ends", about, words)


@pytest.mark.skipif("KILL_POINTS" not in os.environ, reason="takes minutes: KILL_POINTS=20")
@pytest.mark.parametrize("case", WORDS)
def test_other_commands_are_killed_at_any_moment(
    nixherd: Nixherd, programs: Programs, emulator: Emulator, case: str
) -> None:
    killed(programs, "killed_ends", f"{case} {emulator.port} {emulator.fingerprint}", WORDS[case])
