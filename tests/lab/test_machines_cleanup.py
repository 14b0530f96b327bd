"""After SIGKILL at any moment, during boots too, nothing of the lab is left."""

import os
import subprocess
import time
from pathlib import Path

import pytest

from lab.control import cgroups, clean, leftovers
from tests.lab.conftest import Machines, until

pytestmark = [pytest.mark.lab, pytest.mark.slow]


def traces(machines: Machines) -> set[str]:
    """What the host shows of it: processes, mounts, links, network namespaces, loop devices."""
    mark = str(machines.places.checkout)
    found = {f"mount {line.split()[1]}" for line in Path("/proc/mounts").read_text().splitlines() if mark in line}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            line = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if mark in line and int(process.name) != os.getpid():
            found.add(f"process {line}")
    links = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout.splitlines()
    found |= {f"link {line.split()[1]}" for line in links if line.split()[1].startswith(("br0", "v1"))}
    if Path("/run/netns").exists():
        found |= {f"netns {path.name}" for path in Path("/run/netns").glob("vm1*")}
    return found | set(leftovers(machines.places))


@pytest.mark.parametrize("seconds", [0, 0.05, 0.15, 0.3, 0.6, 1.0, 2.0])
def test_sigkill_leaves_nothing(machines: Machines, seconds: float) -> None:
    for vmid in (110, 111):
        machines.boot(vmid)
    time.sleep(seconds)
    assert traces(machines), "the search would find it"
    machines.kill()
    until(lambda: not traces(machines), 5)
    clean(machines.places)
    assert cgroups(machines.places) == []


def test_sigkill_in_the_installer_with_its_disk_mounted_leaves_nothing(machines: Machines) -> None:
    from tests.lab.test_machines_boot import kexec

    machines.boot(110)
    kexec(machines, machines.ready(110))
    address = machines.in_installer(110)
    assert (
        machines.ssh(
            "root", address, "mount /dev/sda2 /mnt && cd /mnt && (setsid sleep 100 >/dev/null 2>&1 &)"
        ).returncode
        == 0
    )
    machines.kill()
    until(lambda: not traces(machines), 5)
