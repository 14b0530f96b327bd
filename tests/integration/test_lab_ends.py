"""A lab that ends in the middle of a provisioning, well or by SIGKILL, leaves nothing on the machine it ran on."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from lab.control import Running, cgroups, leftovers
from tests.integration.lab_driver import Lab, starts, until

pytestmark = pytest.mark.slow


@pytest.fixture
def doomed(tmp_path: Path) -> Iterator[Lab]:
    """A lab of this test's own."""
    lab = Lab(tmp_path / "lab")
    lab("up")
    yield lab
    lab("down")


@contextmanager
def namespaces_of(lab: Lab) -> Iterator[set[str]]:
    """Those of the running lab, by number; held open, so that no other lab is given their numbers when they end."""
    pid = Running.require(lab.places).pid
    with ExitStack() as held:
        places = [Path(f"/proc/{pid}/ns/{kind}") for kind in ("net", "pid")]
        for place in places:
            held.enter_context(place.open())
        yield {str(place.readlink()) for place in places}


def traces(lab: Lab, namespaces: set[str]) -> list[str]:
    """What of a lab the host still shows: processes, mounts, loop devices, links."""
    found = leftovers(lab.places)
    found += [line for line in Path("/proc/mounts").read_text().splitlines() if str(lab.state) in line]
    links = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout.splitlines()
    found += [line for line in links if line.split()[1].startswith(("br0", "v1"))]
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if {str((entry / "ns" / kind).readlink()) for kind in ("net", "pid")} & namespaces:
                found.append(f"process {entry.name} {(entry / 'comm').read_text().strip()}")
        except OSError:
            continue
    return found


@pytest.mark.parametrize(
    ("how", "row"), [("SIGKILL", "address"), ("SIGKILL", "disko"), ("SIGKILL", "reboot"), ("down", "disko")]
)
def test_nothing_stays(doomed: Lab, how: str, row: str) -> None:
    with doomed.provisioning() as run:
        run.until(starts(row))
        with namespaces_of(doomed) as namespaces:
            until(lambda: any("nspawn" in trace for trace in traces(doomed, namespaces)), 20, "the search finds it")
            if how == "SIGKILL":
                os.kill(Running.require(doomed.places).pid, signal.SIGKILL)
            else:
                doomed("down")
            until(lambda: run.process.poll() is not None, 20, "what ran in the lab ends with it")
            until(lambda: not traces(doomed, namespaces), 20, "the end of all that was the lab")
    assert how == "SIGKILL" or cgroups(doomed.places) == []
    doomed("up")
    assert doomed.api("/nodes/prom/qemu")
    with namespaces_of(doomed) as namespaces:
        assert traces(doomed, namespaces)
        doomed("down")
        assert cgroups(doomed.places) == []
        until(lambda: not traces(doomed, namespaces), 20, "who made its namespaces ends after it")
