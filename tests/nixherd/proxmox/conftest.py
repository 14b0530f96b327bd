"""A Proxmox VE API to talk to: the lab's emulator over states, without machines."""

import json
import socket
import ssl
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from lab.start import PRIVILEGES
from nixherd.fleet.models import Endpoint
from nixherd.proxmox.client import Client, connect
from nixherd.proxmox.guard.policy import Policy
from nixherd.proxmox.guest import apply
from nixherd.proxmox.token import Server, Token
from tests.nixherd.proxmox.fleets import EMPTY, FLEET, TEMPLATE

TOKEN = Token("nixherd@pve", "lab", "0f1e2d3c-4b5a-4678-8796-a5b4c3d2e1f0", Server("nowhere.invalid"))
ROOT = Path(__file__).parents[3]
GIB = 1 << 30
READONLY = ["VM.Audit", "VM.GuestAgent.Audit", "VM.GuestAgent.FileRead"]
# docs/proxmox.md, word for word.
RECIPE = [
    *(("/pool/nixherd", "Nixherd"), ("/vms/111", "NixherdReadonly"), ("/vms/9002", "PVETemplateUser")),
    *((f"/vms/{vmid}", "PVEAuditor") for vmid in (104, 109)),
    *((f"/storage/{name}", "PVEDatastoreUser") for name in ("nvmeprom", "local", "tank")),
    ("/sdn/zones/localnetwork/vmbr0", "PVESDNUser"),
]
# Where rights are not what is tested, the same on VMIDs that nobody has yet and on all storages: tests put guests where
# they like. What is the people's and what is readonly stays as in the recipe: a hole in the guard meets a 403.
WIDER = (("/vms", "Nixherd"), ("/storage", "PVEDatastoreUser"))


def granted(*more: tuple[str, str]) -> list[dict[str, Any]]:
    """The access control list of the recipe, and what a test grants beside it."""
    who = [("user", TOKEN.user), ("token", TOKEN.id)]
    return [
        {"path": path, "type": kind, "ugid": ugid, "roleid": role, "propagate": 1}
        for path, role in (*RECIPE, *more)
        for kind, ugid in who
    ]


# Not the default one, which reads all of the system's certificates each time that it is made.
_ANY_CERTIFICATE = ssl._create_unverified_context()


@dataclass
class Emulator:
    """A running emulator; `log` is its request log."""

    port: int
    log: Path
    fingerprint: str
    start: int = field(default=0)

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint("127.0.0.1", "prom", "nvmeprom", port=self.port, fingerprint=self.fingerprint)

    def client(self, policy: Policy | None = None) -> Client:
        return connect(self.endpoint, policy or Policy.from_fleet(FLEET), self.token)

    def root(self) -> Client:
        """Somebody else's eyes: root's, from which nothing is hidden. It may change nothing."""
        token = replace(self.token, user="root@pam", name="all")
        return connect(self.endpoint, Policy.from_fleet(EMPTY), token)

    @property
    def token(self) -> Token:
        """TOKEN, as it belongs to this server."""
        return replace(TOKEN, server=Server.of(self.endpoint))

    def control(self, what: str, **params: Any) -> None:
        """Post to the emulator's own controls (`fault`, `outside`, `reset`)."""
        request = urllib.request.Request(
            f"https://127.0.0.1:{self.port}/_lab/{what}", json.dumps(params).encode(), method="POST"
        )
        with urllib.request.urlopen(request, context=_ANY_CERTIFICATE) as answer:
            assert answer.status == 200

    def by_hand(self, path: str, **values: Any) -> None:
        """Set options of a guest as people do it, whom no guard keeps from any."""
        form = urllib.parse.urlencode(values).encode()
        request = urllib.request.Request(f"https://127.0.0.1:{self.port}/api2/json{path}/config", form, method="PUT")
        request.add_header("Authorization", f"PVEAPIToken={TOKEN.id}={TOKEN.secret}")
        with urllib.request.urlopen(request, context=_ANY_CERTIFICATE) as answer:
            assert answer.status == 200

    def requests(self) -> list[dict[str, Any]]:
        """What came in since the last reset."""
        return [json.loads(line) for line in self.log.read_text().splitlines()[self.start :]]

    def changes(self) -> list[str]:
        return [f"{row['method']} {row['path']}" for row in self.requests() if row["method"] != "GET"]


def state() -> dict[str, Any]:
    """A node with a template, two machines of its owners', one readonly of ours, and a token made as we document it."""

    def people(vmid: int, name: str, **config: Any) -> dict[str, Any]:
        return {
            "type": "qemu",
            "node": "prom",
            "status": "running",
            "agent": "running",
            "guest": {"interfaces": INTERFACES, "files": {"/etc/os-release": "ID=nixos\n"}},
            "config": {"name": name, "cores": 2, "memory": "2048", "agent": "1", **config},
        }

    config = {key: value for key, value in TEMPLATE.items() if key != "digest"}
    storage = {"type": "lvmthin", "content": "images,rootdir", "total": 900 * GIB, "used": 0, "avail": 900 * GIB}
    volumes = {
        "nvmeprom:base-9002-disk-0": {"content": "images", "format": "raw", "size": 4 * GIB, "used": GIB},
        "nvmeprom:vm-104-disk-0": {"content": "images", "format": "raw", "size": 4 * GIB, "used": GIB},
    }
    return {
        "version": 9,
        "task_seconds": {"qmclone": 0.5},
        "qmeventd": {"restarts": 0.2},
        "lock_seconds": 0.3,
        "release": {"version": "9.2.11", "release": "9.2", "repoid": "14a22df35955d97d"},
        "qemu": "10.0.13",
        "nodes": {"prom": {"ip": "127.0.0.1", "cpus": 2, "memory": 8 * GIB, "bridges": {"vmbr0": {}}}},
        "storages": {"nvmeprom": {**storage, "volumes": volumes}},
        "users": {
            TOKEN.user: {"enable": 1, "expire": 0, "tokens": {TOKEN.name: {"secret": TOKEN.secret, "privsep": 1}}},
            "root@pam": {"enable": 1, "expire": 0, "tokens": {"all": {"secret": TOKEN.secret, "privsep": 0}}},
        },
        "acl": granted(*WIDER),
        "roles": {"Nixherd": PRIVILEGES, "NixherdReadonly": READONLY},
        "pools": {"nixherd": {"members": []}},
        "vms": {
            "9002": {"type": "qemu", "node": "prom", "status": "stopped", "config": config},
            "104": people(104, "doc1", scsi0="nvmeprom:vm-104-disk-0,size=4G", net0=f"virtio={MAC},bridge=vmbr0"),
            "109": people(109, "igp"),
            "111": people(111, "kept"),
        },
    }


MAC = "BC:24:11:A1:04:01"
INTERFACES = [
    {"name": "lo", "hardware-address": "00:00:00:00:00:00", "ip-addresses": [{"ip-address": "127.0.0.1", "prefix": 8}]},
    {"name": "docker0", "hardware-address": "02:42:aa:bb:cc:dd", "ip-addresses": [{"ip-address": "172.17.0.1"}]},
    {
        "name": "ens18",
        "hardware-address": MAC.lower(),
        "ip-addresses": [{"ip-address": "fe80::1"}, {"ip-address": "2001:db8::104"}, {"ip-address": "192.0.2.104"}],
    },
]


@contextmanager
def running(directory: Path, state: dict[str, Any]) -> Iterator[Emulator]:
    (directory / "state.json").write_text(json.dumps(state))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = directory / "api.jsonl"
    argv: list[str | Path] = ["--state", directory / "state.json", "--listen", f"127.0.0.1:{port}", "--log", log]
    with subprocess.Popen([sys.executable, "-m", "lab", "api", *argv], cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == b"ready"
        try:
            certificate = ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate(("127.0.0.1", port)))
            yield Emulator(port, log, sha256(certificate).hexdigest())
        finally:
            process.terminate()


_STARTED = pytest.StashKey[Emulator]()


@pytest.fixture(scope="session")
def started(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Emulator:
    """One for all tests of a worker, although each module that imports this has a fixture of its own by that."""
    stash = request.config.stash
    if _STARTED not in stash:
        until_the_end = ExitStack()
        stash[_STARTED] = until_the_end.enter_context(running(tmp_path_factory.mktemp("emulator"), state()))
        request.config.add_cleanup(until_the_end.close)
    return stash[_STARTED]


@pytest.fixture
def emulator(started: Emulator) -> Emulator:
    """The emulator in its start state."""
    started.control("reset")
    started.start = len(started.log.read_text().splitlines()) if started.log.exists() else 0
    return started


@pytest.fixture
def no_long_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apply, "PAUSE", 0.05)


@pytest.fixture
def dev(emulator: Emulator) -> Emulator:
    """The VM `dev` runs, whole and ours, on storages for disks and for backups."""
    from tests.nixherd.proxmox.dev import begin  # which needs this module

    begin(emulator)
    return emulator
