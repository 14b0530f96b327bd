"""Replays recordings of real servers, where they are at hand (they are not part of the repository)."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[3] / "shared" / "tools" / "pve-conformance"
needs_recordings = pytest.mark.skipif(not TOOL.exists(), reason=f"no recordings: {TOOL} is not there")


def agreement(*options: str) -> tuple[int, int, str]:
    """Calls that agree, calls compared, and what the tool printed."""
    command = [sys.executable, str(TOOL), "--verbose", *options, "--", sys.executable, "-m", "lab", "api"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    match = re.search(r"^conformance: (\d+)/(\d+)", done.stdout, re.MULTILINE)
    assert match, done.stdout + done.stderr
    return int(match[1]), int(match[2]), done.stdout


@pytest.mark.unit
@needs_recordings
def test_parameters_configuration_and_resize_agree() -> None:
    agreed, compared, report = agreement("--only", "params-config-resize")
    assert agreed == compared > 100, report


@pytest.mark.slow
@needs_recordings
@pytest.mark.timeout(600)
def test_all_recordings_agree() -> None:
    agreed, compared, report = agreement()
    assert compared > 700
    assert agreed / compared >= 0.99, report
