"""A small node for the emulator's tests: driven without HTTP (`Node`), or as a process (`api_process`)."""

import contextlib
import copy
import http.client
import json
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from lab.api.dispatch import resolve
from lab.api.emulator import Emulator
from lab.api.permissions import User
from lab.api.routes import Page
from lab.api.states import StatesBackend

ROOT = User("root@pam")
GIB = 1 << 30
SECRET = "11111111-2222-4333-8444-555555555555"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGtqN0uZ7H5ZkQf5m8cYfZ7mW8zV2lN1XkY0Rk1a2b3c op@lab"

# Node prom: a template 9002, a running VM 104, both on a thin pool; `fw@pve!t` is the token of provisioning.
STATE: dict[str, Any] = {
    "version": 9,
    # nobody waits here, and a reboot is quick
    "qmeventd": {"after": 0.01, "waits": 0, "restarts": 0.05},
    "nodes": {"prom": {"cpus": 4, "memory": 16 * GIB, "dns": ["10.0.0.1"], "bridges": {"vmbr0": {}}}},
    "storages": {
        "nvme": {
            "type": "lvmthin",
            "content": "images,rootdir",
            "total": 100 * GIB,
            "used": 40 * GIB,
            "volumes": {
                "nvme:base-9002-disk-0": {"content": "images", "format": "raw", "size": 4 * GIB, "used": GIB},
                "nvme:vm-104-disk-0": {"content": "images", "format": "raw", "size": 32 * GIB, "used": 9 * GIB},
            },
        },
        "zfs": {"type": "zfspool", "content": "images", "total": 10 * GIB, "used": 5 * GIB},
    },
    "users": {
        "root@pam": {"enable": 1, "password": "secret", "tokens": {"full": {"secret": SECRET, "privsep": 0}}},
        "fw@pve": {"enable": 1, "tokens": {"t": {"secret": SECRET, "privsep": 1}}},
    },
    "vms": {
        "104": {
            "status": "running",
            "agent": "running",
            "guest": {"host-name": "doc1", "commands": [{"argv": ["/bin/true"], "exitcode": 0}]},
            "config": {
                **{"name": "doc1", "memory": "2048", "cores": 2, "agent": "1", "boot": "order=scsi0"},
                "scsi0": "nvme:vm-104-disk-0,size=32G",
                "net0": "virtio=BC:24:11:00:01:04,bridge=vmbr0",
            },
        },
        "9002": {
            "config": {
                **{"name": "debian", "template": 1, "memory": "512", "agent": "1", "boot": "order=scsi0"},
                **{"description": "of the people", "tags": "base", "protection": 1, "onboot": 1},
                "smbios1": "uuid=0bba6432-6277-4aff-8ad7-90c53903b674",
                "vmgenid": "cfe7b25a-8f17-4d2e-8db4-3b5254c67487",
                "scsi0": "nvme:base-9002-disk-0,size=4G",
                "ide2": "nvme:vm-9002-cloudinit,media=cdrom",
                "net0": "virtio=BC:24:11:00:90:02,bridge=vmbr0",
            },
        },
    },
}


def state_with(**changes: Any) -> dict[str, Any]:
    """The node's state with other top-level values."""
    return {**copy.deepcopy(STATE), **changes}


class Node:
    """The emulator in this process; calls go through permissions and parameter checks, not through HTTP."""

    def __init__(self, state: Mapping[str, Any] = STATE, backend: Any = None) -> None:
        self.backend = backend or StatesBackend(state)
        self.emulator = Emulator(state, self.backend)

    def call(self, method: str, path: str, params: Mapping[str, Any] | None = None, user: User = ROOT) -> Any:
        """The data of the answer; raises ApiError."""
        _, work = resolve(self.emulator, user, method, path, params or {})
        result = work()
        return result.data if isinstance(result, Page) else result

    def get(self, path: str, **params: Any) -> Any:
        return self.call("GET", path, params)

    def config(self, vmid: int) -> dict[str, Any]:
        return dict(self.get(f"/nodes/prom/qemu/{vmid}/config"))

    def ended(self, upid: str, patience: float = 10) -> str:
        """The exit status of a task, once it has one."""
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            status = self.get(f"/nodes/prom/tasks/{upid}/status")
            if status["status"] == "stopped":
                return str(status["exitstatus"])
            time.sleep(0.01)
        raise TimeoutError(upid)

    def run(self, method: str, path: str, user: User = ROOT, **params: Any) -> str:
        """The exit status of the task that the call starts."""
        return self.ended(self.call(method, path, params, user))

    def log(self, upid: str) -> list[str]:
        return [row["t"] for row in self.get(f"/nodes/prom/tasks/{upid}/log")]


class Api:
    """A client of the emulator's process."""

    def __init__(self, port: int, process: subprocess.Popen[str], log: Path) -> None:
        self.port, self.process, self.log = port, process, log
        self.headers = {"Authorization": f"PVEAPIToken=root@pam!full={SECRET}"}

    def connection(self) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection("127.0.0.1", self.port, timeout=30, context=ssl._create_unverified_context())

    def request(
        self, method: str, path: str, params: Mapping[str, Any] | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, str, Any]:
        """Status, reason and body (parsed if it is JSON) of a request on a connection of its own."""
        with contextlib.closing(self.connection()) as connection:
            body, form = None, {"Content-Type": "application/x-www-form-urlencoded"}
            if params is not None and method in ("POST", "PUT"):
                body = urlencode(params, quote_via=quote, doseq=True)
            sent = {**(self.headers if headers is None else headers), **(form if body is not None else {})}
            connection.request(method, f"/api2/json{path}", body, sent)
            response = connection.getresponse()
            raw = response.read()
            kind = response.getheader("Content-Type") or ""
            return response.status, response.reason, json.loads(raw) if "json" in kind else raw.decode("latin-1")

    def control(self, what: str, **params: Any) -> int:
        with contextlib.closing(self.connection()) as connection:
            connection.request("POST", f"/_lab/{what}", json.dumps(params))
            return connection.getresponse().status

    def requests(self) -> list[dict[str, Any]]:
        """What the request log says."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]


@contextlib.contextmanager
def api_process(folder: Path, state: Mapping[str, Any] = STATE) -> Iterator[Api]:
    """`python -m lab api` on a free port, ended with SIGTERM."""
    file, log = folder / "state.json", folder / "api.jsonl"
    file.write_text(json.dumps(state))
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "lab",
        "api",
        "--state",
        str(file),
        "--listen",
        f"127.0.0.1:{port}",
        "--log",
        str(log),
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout
        assert process.stdout.readline().strip() == "ready"
        yield Api(port, process, log)
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
