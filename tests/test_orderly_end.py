"""SIGTERM to a run of tests, with workers and without: whatever their fixtures have made is taken down."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

CONFTEST = """
from tests.orderly_end import OrderlyEnd

def pytest_configure(config):
    config.pluginmanager.register(OrderlyEnd(config))
"""
TESTS = """
import os, time
from pathlib import Path
import pytest

@pytest.fixture(scope="session")
def made():
    file = Path(__file__).with_name(f"made-{os.getpid()}")
    file.touch()
    yield
    time.sleep(1)  # a lab is taken down in seconds
    file.unlink()
    file.with_name(f"down-{os.getpid()}").touch()

@pytest.mark.parametrize("number", range(4))
def test_that_goes_on(made, number):
    time.sleep(60)
"""


@pytest.mark.process
@pytest.mark.parametrize("workers", [0, 2])
def test_sigterm_tears_down_what_the_fixtures_have_made(tmp_path: Path, workers: int) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_long.py").write_text(TESTS)
    options = [
        "-q",
        "-p",
        "xdist",
        "-p",
        "no:cacheprovider",
        "-n",
        str(workers),
        f"--rootdir={tmp_path}",
        # else it removes at its end what earlier runs have left in the usual place, for as long as that takes
        f"--basetemp={tmp_path / 'temporary'}",
        str(tmp_path),
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest", *options],
        cwd=Path(__file__).parent.parent,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        deadline = time.monotonic() + 60
        while len(list(tmp_path.glob("made-*"))) < max(1, workers) and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGTERM)  # a second one does not cut the first one's work short
        output, _ = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == pytest.ExitCode.INTERRUPTED, output
    assert list(tmp_path.glob("made-*")) == [], output
    assert len(list(tmp_path.glob("down-*"))) == max(1, workers), output
    assert "replacing crashed worker" not in output
