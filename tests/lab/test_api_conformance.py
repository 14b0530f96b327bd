"""Replays recordings of real servers, where they are at hand (they are not part of the repository)."""

import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lab.api.make_schema import condensed, documented
from lab.api.routes import REGISTRY
from lab.api.schema import FILE

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
def test_the_schema_is_what_its_generator_makes_of_the_documentation() -> None:
    folder = TOOL.parents[1] / "pve"
    old, new = (documented(folder / f"apidoc-{version}.json") for version in (8, 9))
    assert FILE.read_text() == condensed(old, new)
    assert not [key for key in REGISTRY if key not in old and key not in new]


@pytest.mark.unit
@needs_recordings
def test_parameters_configuration_and_resize_agree() -> None:
    agreed, compared, report = agreement("--only", "params-config-resize")
    assert agreed == compared > 100, report


@pytest.mark.slow
@needs_recordings
@pytest.mark.timeout(600)
def test_all_recordings_agree() -> None:
    """Side by side: most of the time the servers wait, as the real one does."""
    names = sorted(path.stem for path in (TOOL.parents[1] / "pve" / "recordings").glob("*.json"))
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda name: agreement("--only", name), names))
    agreed, compared = (sum(counts[n] for counts in found) for n in (0, 1))
    assert compared > 700
    assert agreed / compared >= 0.99, "\n".join(report for _, _, report in found)
