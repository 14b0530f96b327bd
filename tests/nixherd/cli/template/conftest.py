"""A node without the declared template, and the command that creates it."""

from collections.abc import Callable
from typing import Any

import pytest

from nixherd.cli.main import run
from nixherd.proxmox.template import image
from tests.nixherd.cli.conftest import Ended, Nixherd
from tests.nixherd.proxmox.conftest import GIB, Emulator, granted

IMAGE = "local:import/debian-13-genericcloud-amd64.qcow2"
URL = "https://cloud.debian.org/images/cloud/trixie/latest/debian-13-genericcloud-amd64.qcow2"
SHA256 = "0123456789abcdef" * 4
COMMANDS = [{"name": name, "enabled": True} for name in ("guest-ping", *image.AGENT_COMMANDS)]
GOOD: dict[str, Any] = {
    "info": {"version": "10.0.2", "supported_commands": COMMANDS},
    "commands": [{"argv": ["cloud-init", "status", "--wait"], "exitcode": 0, "stdout": "status: done\n"}],
}
BARRED = {**GOOD, "info": {"version": "9", "supported_commands": [{**each, "enabled": False} for each in COMMANDS]}}
Create = Callable[..., Ended]


@pytest.fixture
def create(nixherd: Nixherd, capfd: pytest.CaptureFixture[str]) -> Create:
    """Runs `nixherd template create WORDS`."""

    def call(*words: str) -> Ended:
        capfd.readouterr()
        status = run(["template", "create", "--pool", POOL, *words])
        out, err = capfd.readouterr()
        assert "Traceback" not in out + err
        return Ended(status, out, err)

    return call


def begin(
    emulator: Emulator,
    boots: dict[str, Any] | None = GOOD,
    vms: dict[str, Any] | None = None,
    volumes: dict[str, Any] | None = None,
    **patch: Any,
) -> None:
    """No template, a storage of images, a URL that the node can fetch; new machines come up as `boots`."""
    volume = {"content": "import", "format": "qcow2", "size": 3 * GIB, "used": GIB}
    local = {
        **{"type": "dir", "path": "/var/lib/vz", "content": "import,iso", "total": 99 * GIB, "avail": 99 * GIB},
        "volumes": {IMAGE: volume, "local:iso/debian.img": {**volume, "content": "iso", "format": "iso"}},
    }
    web = {URL: {"size": 3 * GIB, "sha256": SHA256}}
    emulator.control(
        "reset",
        patch={
            **{"vms": vms or {"9002": None}},
            **{"storages": {"local": local, "nvmeprom": {"volumes": {_BASE: None, **(volumes or {})}}}},
            **{"web": web, "boots": boots, "acl": granted(*RECIPE), "roles": ROLES},
            "pools": {POOL: {"members": []}},
            **patch,
        },
    )


POOL = "nixherd-templates"
# What docs/proxmox.md grants for making a template, beside what the token has anyway.
ROLES = {
    "NixherdTemplate": [
        *("VM.Allocate", "VM.Audit", "VM.Clone", "VM.PowerMgmt", "VM.GuestAgent.Unrestricted"),
        *(f"VM.Config.{it}" for it in ("CPU", "Memory", "Options", "Disk", "Network", "HWType", "Cloudinit")),
    ],
    "NixherdImages": ["Datastore.AllocateTemplate", "Datastore.Audit"],
    "NixherdFetch": ["Sys.AccessNetwork"],
}
RECIPE = (
    *((f"/pool/{POOL}", "NixherdTemplate"), ("/storage/local", "NixherdImages")),
    *(("/storage/nvmeprom", "PVEDatastoreUser"), ("/sdn/zones/localnetwork/vmbr0", "PVESDNUser")),
    ("/nodes/prom", "NixherdFetch"),
)
_BASE = "nvmeprom:base-9002-disk-0"


def template(emulator: Emulator) -> dict[str, Any]:
    config = emulator.client().config("prom", 9002)
    return dict(config.values) if config else {}


def guests(emulator: Emulator) -> set[int]:
    return {row.vmid for row in emulator.client().resources()}
