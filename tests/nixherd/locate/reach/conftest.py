"""A guest, as the hypervisor and the operator speak of it."""

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from nixherd.base.errors import AgentUnavailable, ApiError
from nixherd.base.ssh_keys import HOST_KEY_FILE, generate_ed25519
from nixherd.locate.reach import (
    Epoch,
    Hints,
    Look,
    Place,
    look,
)
from nixherd.proxmox.answers import ExecResult, Interface, Node, Resource, VmStatus
from nixherd.proxmox.config import VmConfig
from nixherd.proxmox.guest.identity import mark
from tests.nixherd.proxmox.fleets import DEV, FLEET, HOST
from tests.shared import Shared

MAC = "bc:24:11:00:01:10"
AGENTS_KEY = generate_ed25519("clone").public
INSTALLER = "ID=nixos\nVARIANT_ID=installer\n"


@dataclass
class FakeClient:
    """A hypervisor with the VM `dev`, or without it. Methods are those of Client that are used."""

    exists: bool = True
    power: str = "running"
    system: str = "ID=debian\n"
    addresses: tuple[str, ...] = ("192.0.2.110",)
    card: str = MAC
    agent: bool = True
    key: str = AGENTS_KEY
    cloud_init: ExecResult = field(default_factory=lambda: ExecResult(0, "status: done", ""))
    config_: dict[str, Any] = field(default_factory=dict)
    executed: list[list[str]] = field(default_factory=list)

    def status(self, node: str, vmid: int, type: object) -> VmStatus | None:
        return VmStatus.of({"name": "dev", "status": self.power}, vmid=vmid) if self.exists else None

    def config(self, node: str, vmid: int, type: object = None) -> VmConfig | None:
        ours = {"name": "dev", "description": mark(FLEET, DEV), "net0": f"virtio={self.card.upper()},bridge=vmbr0"}
        return VmConfig({**ours, **self.config_}) if self.exists else None

    def resources(self) -> tuple[Resource, ...]:
        return ()

    def is_free(self, vmid: int) -> bool:
        return not self.exists

    def agent_interfaces(self, node: str, vmid: int) -> tuple[Interface, ...]:
        self._answer()
        found = [{"ip-address": address} for address in self.addresses]
        docker = {
            "name": "docker0",
            "hardware-address": "02:42:00:00:00:01",
            "ip-addresses": [{"ip-address": "172.17.0.1"}],
        }
        return (Interface.of(docker), Interface.of({"name": "e", "hardware-address": self.card, "ip-addresses": found}))

    def agent_read(self, node: str, vmid: int, path: str) -> str:
        self._answer()
        return {"/etc/os-release": self.system, HOST_KEY_FILE: f"{self.key}\n"}[path]

    def node_rows(self) -> tuple[Node, ...]:
        return (Node("prom", "online"), Node("gone", "offline"))

    def node_addresses(self) -> dict[str, str]:
        return {"192.0.2.1": "prom", "192.0.2.2": "gone"}

    def interface_addresses(self, node: str) -> tuple[str, ...]:
        if node != "prom":
            raise ApiError("no route to it", 595)
        return ("192.0.2.1", "2001:db8:0::1", "198.51.100.1")

    def agent_exec(self, node: str, vmid: int, argv: list[str], timeout: float) -> ExecResult:
        self._answer()
        self.executed.append(argv)
        return self.cloud_init

    def _answer(self) -> None:
        if not self.agent:
            raise AgentUnavailable("QEMU guest agent is not running", 500)


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shared:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return Shared(replace(FLEET, vms={"dev": DEV}), tmp_path / "token")


def places(
    shared: Shared,
    client: FakeClient,
    *,
    patience: float = 10,
    epochs: Collection[Epoch] = tuple(Epoch),
    said: list[str] | None = None,
) -> list[Place]:
    shared.asks(client)
    progress = (said if said is not None else []).append
    return look(
        shared.hypervisor, shared.keys, HOST, Hints(), Look(epochs, tuple(Epoch), patience=patience, progress=progress)
    )
