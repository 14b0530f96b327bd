"""Values of a scripted machine, for the tests of the engine."""

from dataclasses import replace
from pathlib import Path

import pytest

from nixherd.deploy import health, reboot
from nixherd.deploy import job as jobs
from nixherd.deploy.running import Running
from nixherd.process import Completed
from tests.nixherd.deploy.scripted import NEW, OLD, REVISION
from tests.nixherd.proxmox.fleets import FLEET, HOST
from tests.runs import DESCRIBED
from tests.shared import Shared

BEFORE = Running(OLD, OLD, "dev", "1", revision="old")
CONFIG = replace(DESCRIBED, toplevel=NEW, toplevel_drv=f"{NEW}.drv", revision=REVISION)
FAILED = Completed("", "sorry\nit is broken\n", 1)
SHARED = Shared(replace(FLEET, hosts={"dev": replace(HOST, id="dev"), "far": replace(HOST, id="far")}), Path("token"))


def system(current: str = OLD, **values: str) -> str:
    usual = {"current": current, "profile": current, "hostname": "dev", "boot_id": "1", "sudo": "root", **values}
    return "".join(f"{name}={value}\n" for name, value in usual.items())


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (health, reboot, jobs):
        monkeypatch.setattr(module.time, "sleep", lambda seconds: None)
