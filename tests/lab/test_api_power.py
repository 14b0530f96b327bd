"""Power through a backend: what it is given, and what it tells."""

import threading
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from lab.api import power
from lab.api.errors import ApiError
from lab.api.states import StatesBackend
from lab.backend import BackendError
from tests.lab.api_node import KEY, STATE, Node, state_with

pytestmark = pytest.mark.unit
VM = "/nodes/prom/qemu/110"


class Recording(StatesBackend):
    """Notes each start; a guest can switch itself off."""

    def __init__(self, state: Mapping[str, Any] = STATE) -> None:
        super().__init__(state)
        self.starts: list[tuple[int, dict[str, Any], Mapping[str, str] | None]] = []
        self.fails = ""
        self.tell: Callable[[int], None] = lambda vmid: None

    def start(self, vmid: int, config: Mapping[str, Any], cloudinit: Mapping[str, str] | None) -> None:
        if self.fails:
            raise BackendError(self.fails)
        super().start(vmid, config, cloudinit)
        self.starts.append((vmid, dict(config), cloudinit))

    def on_power_off(self, callback: Callable[[int], None]) -> None:
        self.tell = callback


@pytest.fixture
def backend() -> Recording:
    return Recording()


@pytest.fixture
def node(backend: Recording) -> Node:
    node = Node(backend=backend)
    assert node.run("POST", "/nodes/prom/qemu/9002/clone", newid=110, name="dev") == "OK"
    return node


def status(node: Node) -> Any:
    return node.get(f"{VM}/status/current")["status"]


def test_a_start_gives_the_backend_configuration_and_cloud_init_drive(node: Node, backend: Recording) -> None:
    keys = KEY.replace(" ", "%20").replace("@", "%40")
    wanted = {
        "ciuser": "op",
        "sshkeys": keys,
        "ipconfig0": "ip=dhcp",
        "cipassword": "s3cret",
        "searchdomain": "lab.test",
    }
    node.call("PUT", f"{VM}/config", wanted)
    upid = node.call("POST", f"{VM}/status/start")
    assert node.ended(upid) == "OK"
    assert node.log(upid) == ["generating cloud-init ISO", "TASK OK"]
    vmid, config, files = backend.starts[0]
    assert (vmid, config["scsi0"]) == (110, "nvme:vm-110-disk-0,size=4G")
    assert files is not None
    user = files["user-data"].splitlines()
    assert user[:5] == ["#cloud-config", "hostname: dev", "manage_etc_hosts: true", "fqdn: dev.lab.test", "user: op"]
    assert f"  - {KEY}" in user
    assert any(line.startswith("password: $5$") for line in user)
    mac = config["net0"].partition("=")[2].partition(",")[0].lower()
    assert f"      mac_address: '{mac}'" in files["network-config"].splitlines()
    assert files["meta-data"].startswith("instance-id: ")


def test_changes_of_a_running_vm_wait_for_its_next_start(node: Node, backend: Recording) -> None:
    node.run("POST", f"{VM}/status/start")
    node.call("PUT", f"{VM}/config", {"memory": 1024, "tags": "b;a", "delete": "onboot"})
    assert node.config(110)["memory"] == "1024"
    assert node.get(f"{VM}/config", current=1)["memory"] == "512"
    rows = {row["key"]: row for row in node.get(f"{VM}/pending")}
    assert rows["memory"] == {"key": "memory", "value": "512", "pending": "1024"}
    assert rows["tags"] == {"key": "tags", "value": "a;b"}
    assert "onboot" not in rows
    assert node.run("POST", f"{VM}/status/stop") == "OK"
    assert node.run("POST", f"{VM}/status/start") == "OK"
    assert backend.starts[-1][1]["memory"] == "1024"
    assert "pending" not in {key for row in node.get(f"{VM}/pending") for key in row}


def test_a_reverted_change_is_forgotten(node: Node) -> None:
    node.run("POST", f"{VM}/status/start")
    node.call("PUT", f"{VM}/config", {"memory": 1024})
    node.call("PUT", f"{VM}/config", {"revert": "memory"})
    assert node.config(110)["memory"] == "512"


def test_a_guest_that_switches_itself_off_is_stopped(node: Node, backend: Recording) -> None:
    node.run("POST", f"{VM}/status/start")
    backend.tell(110)  # but it still runs: a late word of an earlier stop
    assert status(node) == "running"
    backend.stop(110)
    backend.tell(110)
    assert status(node) == "stopped"


def test_a_backend_that_cannot_start_fails_the_task(node: Node, backend: Recording) -> None:
    backend.fails = "no such loop device"
    assert node.run("POST", f"{VM}/status/start") == "no such loop device"
    assert status(node) == "stopped"


def test_reboot_starts_with_what_was_pending(node: Node, backend: Recording) -> None:
    node.run("POST", f"{VM}/status/start")
    backend.set_agent(110, True)
    node.call("PUT", f"{VM}/config", {"cores": 4})
    assert node.run("POST", f"{VM}/status/reboot") == "OK"
    assert [config.get("cores") for _, config, _ in backend.starts] == [None, 4]
    assert status(node) == "running"


def test_shutdown_of_a_deaf_guest_times_out_unless_forced(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(power, "PING_SECONDS", 0.01)
    node.run("POST", f"{VM}/status/start")
    failed = node.run("POST", f"{VM}/status/shutdown", timeout=0)
    assert failed == "VM quit/powerdown failed - got timeout"
    assert status(node) == "running"
    assert node.run("POST", f"{VM}/status/shutdown", timeout=0, forceStop=1) == "OK"
    assert status(node) == "stopped"


def test_stop_can_overrule_a_shutdown_that_holds_the_lock(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(power, "PING_SECONDS", 0.01)
    node.run("POST", f"{VM}/status/start")
    waiting = node.call("POST", f"{VM}/status/shutdown", {"timeout": 60})
    assert node.ended(node.call("POST", f"{VM}/status/stop", {"overrule-shutdown": 1})) == "OK"
    assert node.ended(waiting) == "unexpected status"
    assert status(node) == "stopped"


def test_a_lock_fails_the_start_but_not_the_request() -> None:
    state = state_with()
    state["vms"]["110"] = {"config": {"lock": "backup"}}
    node = Node(state)
    assert node.run("POST", f"{VM}/status/start") == "VM is locked (backup)"
    with pytest.raises(ApiError, match=r"VM is locked \(backup\)"):
        node.call("PUT", f"{VM}/config", {"memory": 64})
    assert node.get(f"{VM}/status/current")["lock"] == "backup"


def test_a_busy_lock_file_times_out(node: Node) -> None:
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with node.emulator.locks.config(110):
            held.set()
            done.wait(10)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait()
    with pytest.raises(ApiError) as busy, node.emulator.locks.config(110, 0.05):
        pass
    done.set()
    holder.join()
    assert busy.value.message == "can't lock file '/var/lock/qemu-server/lock-110.conf' - got timeout"
