"""While the template is being made the guard lets that be made and tried, and nothing else than before."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nixherd.base.errors import Refused
from nixherd.fleet.models import VmidRange
from nixherd.proxmox import wire
from nixherd.proxmox.guard.policy import Making, Policy
from nixherd.proxmox.wire import Upload
from tests.nixherd.proxmox.fleets import DEV, FLEET

RANGED = replace(FLEET, ranges=(VmidRange("templates", 9000, 9009), VmidRange("production", 100, 199)))
PLAIN = Policy.from_fleet(RANGED)
MAKING = replace(PLAIN, making=Making(9002, 9000))
N = "/nodes/prom/qemu"
S = "/nodes/prom/storage/local"
IMAGE = "local:import/debian-13.qcow2"
BROUGHT = {"content": "import", "filename": "nixherd-9002-0123abcd.qcow2", "checksum": "0" * 64}
BROUGHT |= {"checksum-algorithm": "sha256"}
MADE = {"vmid": 9002, "scsi0": f"nvmeprom:0,import-from={IMAGE}", "serial0": "socket", "ide2": "nvmeprom:cloudinit"}
MADE |= {"efidisk0": "nvmeprom:1,efitype=4m,pre-enrolled-keys=0", "description": "nixherd fleet=homelab template=9002"}

ONLY_THEN: list[tuple[str, str, dict[str, Any]]] = [
    ("POST", N, MADE),
    ("POST", f"{N}/9002/template", {}),
    ("DELETE", f"{N}/9002", {}),
    ("POST", f"{N}/9002/clone", {"newid": 9000, "name": "trial", "full": 1}),
    ("POST", f"{N}/9000/status/start", {}),
    ("POST", f"{N}/9000/status/stop", {}),
    ("POST", f"{N}/9000/agent/exec", {"command": ["cloud-init", "status", "--wait"]}),
    ("GET", f"{N}/9000/agent/exec-status", {"pid": 4}),
    ("DELETE", f"{N}/9000", {}),
    ("POST", f"{S}/download-url", {**BROUGHT, "url": "https://cloud.example/x.qcow2"}),
    ("POST", f"{S}/upload", BROUGHT),
]
NEVER: list[tuple[str, str, dict[str, Any]]] = [
    ("PUT", f"{N}/9002/config", {"cores": 2}),
    ("POST", f"{N}/9002/status/start", {}),
    ("POST", f"{N}/9002/agent/exec", {"command": ["true"]}),
    ("PUT", f"{N}/9002/resize", {"disk": "scsi0", "size": "64G"}),
    ("POST", f"{N}/9002/snapshot", {"snapname": "clean"}),
    ("PUT", f"{N}/9000/config", {"cores": 2}),
    ("POST", f"{N}/9000/template", {}),
    ("POST", f"{N}/9000/move_disk", {"disk": "scsi0", "storage": "tank"}),
    ("POST", N, {**MADE, "vmid": 9000}),
    ("POST", N, {**MADE, "archive": "local:backup/vzdump-qemu-9002-2026_01_02-03_04_05.vma.zst"}),
    ("POST", N, {**MADE, "force": 1}),
    ("POST", N, {**MADE, "scsi1": "nvmeprom:vm-104-disk-0"}),
    ("POST", N, {**MADE, "scsi0": "nvmeprom:0,import-from=nvmeprom:vm-104-disk-0"}),
    ("POST", N, {**MADE, "scsi0": "nvmeprom:0,import-from=/etc/shadow"}),
    ("POST", N, {**MADE, "serial0": "/dev/ttyS0"}),
    ("POST", N, {"vmid": 110, "scsi0": "nvmeprom:vm-9002-disk-0"}),
    ("PUT", f"{N}/110/config", {"scsi1": "nvmeprom:vm-9002-disk-0"}),
    ("POST", f"{N}/9002/clone", {"newid": 9001}),
    ("POST", f"{N}/104/clone", {"newid": 9000}),
    ("POST", "/nodes/prom/lxc/9000/status/start", {}),
    ("DELETE", "/nodes/prom/lxc/9002", {}),
    ("POST", "/nodes/prom/vzdump", {"vmid": "9002", "storage": "local", "remove": 0}),
    ("DELETE", f"{S}/content/{IMAGE}", {}),
    ("POST", f"{S}/upload", {**BROUGHT, "filename": "nixherd-9003-0123.qcow2"}),
    ("POST", f"{S}/upload", {**BROUGHT, "filename": "debian.qcow2"}),
    ("POST", f"{S}/upload", {**BROUGHT, "filename": "../nixherd-9002-0.qcow2"}),
    ("POST", f"{S}/upload", {**BROUGHT, "content": "vztmpl"}),
    ("POST", f"{S}/upload", {**BROUGHT, "tmpfilename": "/var/tmp/pveupload-0"}),
    ("POST", f"{S}/upload", {key: value for key, value in BROUGHT.items() if key != "checksum"}),
    ("POST", f"{S}/download-url", {**BROUGHT, "url": "https://x/y.qcow2", "verify-certificates": 0}),
    *(("DELETE", f"{N}/{vmid}", {}) for vmid in (104, 109, 111, 105, 9001)),
]


@pytest.mark.parametrize(("method", "path", "params"), ONLY_THEN)
def test_what_makes_and_tries_it_passes_then_and_only_then(method: str, path: str, params: dict[str, Any]) -> None:
    MAKING.check(method, path, params)
    for other in (
        PLAIN,
        replace(PLAIN, making=Making(9003, 9000)),  # another one than the definitions declare
        replace(MAKING, template=None),  # which is none any more
        replace(MAKING, guests={**MAKING.guests, 9002: replace(DEV, vmid=9002, readonly=True)}),
    ):
        with pytest.raises(Refused):
            other.check(method, path, params)


@pytest.mark.parametrize(("method", "path", "params"), NEVER)
def test_nothing_else_of_it_passes(method: str, path: str, params: dict[str, Any]) -> None:
    for policy in (MAKING, PLAIN):
        with pytest.raises(Refused):
            policy.check(method, path, params)


@pytest.mark.parametrize("trial", [104, 109, 111, 9002, 9010, 8999, 300])
def test_a_trial_is_nobody_else_and_in_a_range_of_the_definitions(trial: int) -> None:
    policy = replace(PLAIN, making=Making(9002, trial))
    for method, path in (("POST", f"{N}/{trial}/status/stop"), ("DELETE", f"{N}/{trial}")):
        if (method, trial) == ("DELETE", 9002):
            continue  # the template in the making itself
        with pytest.raises(Refused):
            policy.check(method, path, {})


def test_a_file_on_its_way_is_judged_by_what_it_says(tmp_path: Path) -> None:
    file = tmp_path / "image"
    file.write_bytes(b"QFI\xfb\r\n--x\r\n" * 1000)
    body = Upload(file, "nixherd-9002-0.qcow2", {"content": "import"})
    origin = "https://127.0.0.1:8006"
    url = f"{origin}/api2/json{S}/upload"
    headers = {"Content-Type": body.content_type}
    path, params = wire.decode_request("POST", url, headers, body, origin)
    assert (path, params) == (f"{S}/upload", {"content": ["import"], "filename": ["nixherd-9002-0.qcow2"]})
    sent = b"".join(body)
    assert len(sent) == len(body)
    assert file.read_bytes() in sent
    for other in ({"Content-Type": "multipart/form-data; boundary=x"}, {}):
        with pytest.raises(Refused, match="only forms can be judged"):
            wire.decode_request("POST", url, other, body, origin)
    with pytest.raises(Refused, match="with a query"):
        wire.decode_request("POST", f"{url}?content=vztmpl", headers, body, origin)
