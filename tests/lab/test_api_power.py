"""Power through a backend: what it is given, and what it tells."""

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from lab.api import power
from lab.api.errors import ApiError, ParameterError
from lab.api.permissions import User
from lab.api.states import StatesBackend
from lab.backend import BackendError
from tests.lab.api_node import KEY, STATE, Node, state_with

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
    expected = {
        "ciuser": "op",
        "sshkeys": keys,
        "ipconfig0": "ip=dhcp",
        "cipassword": "s3cret",
        "searchdomain": "lab.test",
    }
    node.call("PUT", f"{VM}/config", expected)
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


def second_task(node: Node, starts: int = 2, patience: float = 5) -> dict[str, Any]:
    """The row of the task that starts a guest again, the so-manieth by root@pam, once it has ended."""
    until = time.monotonic() + patience
    while time.monotonic() < until:
        rows = node.get("/nodes/prom/tasks", typefilter="qmstart", vmid=110, userfilter="root@pam")
        if len(rows) == starts:
            return dict(rows[0])
        time.sleep(0.01)
    raise TimeoutError


def test_a_reboot_is_two_tasks_and_the_guest_is_off_between_them(node: Node, backend: Recording) -> None:
    """What waited has taken effect as soon as it is off."""
    node.run("POST", f"{VM}/status/start")
    backend.set_agent(110, True)
    node.call("PUT", f"{VM}/config", {"cores": 4})
    upid = node.call("POST", f"{VM}/status/reboot")
    assert (node.ended(upid), node.log(upid)) == ("OK", ["TASK OK"])
    current = node.get(f"{VM}/status/current")
    assert (current["status"], current["cpus"]) == ("stopped", 4)
    row = second_task(node)
    assert (row["status"], row["user"], row.get("tokenid")) == ("OK", "root@pam", None)
    assert [config.get("cores") for _, config, _ in backend.starts] == [None, 4]
    assert status(node) == "running"


def test_the_second_task_of_a_reboot_may_fail(node: Node, backend: Recording) -> None:
    node.run("POST", f"{VM}/status/start")
    backend.set_agent(110, True)
    with pytest.raises(ApiError):
        node.call("PUT", f"{VM}/config", {"net1": "virtio,bridge=vmbr77"})
    assert node.run("POST", f"{VM}/status/reboot") == "OK"
    row = second_task(node)
    assert row["status"] == "bridge 'vmbr77' does not exist"
    assert node.log(row["upid"])[-2:] == ["", "TASK ERROR: bridge 'vmbr77' does not exist"]
    assert status(node) == "stopped"


def test_a_reboot_that_nobody_finishes_and_one_that_fails_as_told(node: Node, backend: Recording) -> None:
    for fault in ({"never": True}, {"message": "out of memory"}):
        node.run("POST", f"{VM}/status/start")
        backend.set_agent(110, True)
        node.emulator.faults.switch("restart", True, fault)
        assert node.run("POST", f"{VM}/status/reboot") == "OK"
    assert second_task(node, 3)["status"] == "out of memory"
    assert status(node) == "stopped"
    assert len(backend.starts) == 2


def test_a_failed_reboot_is_none_later(node: Node, backend: Recording, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(power, "PING_SECONDS", 0.01)
    node.run("POST", f"{VM}/status/start")
    assert node.run("POST", f"{VM}/status/reboot", timeout=0) == "VM quit/powerdown failed - got timeout"
    assert node.run("POST", f"{VM}/status/stop") == "OK"
    assert status(node) == "stopped"  # looking, it has been tidied up
    time.sleep(0.1)
    assert len(backend.starts) == 1


def test_a_vm_started_before_its_cleanup_leaves_the_lock_held() -> None:
    state = state_with(qmeventd={"after": 5, "waits": 30, "restarts": 0}, lock_seconds=0.2)
    node = Node(state)
    node.emulator.backend.set_agent(104, False)  # type: ignore[attr-defined]
    vm = "/nodes/prom/qemu/104"
    timeout = "can't lock file '/var/lock/qemu-server/lock-104.conf' - got timeout"
    assert node.run("POST", f"{vm}/status/stop") == "OK"
    assert node.run("POST", f"{vm}/status/start") == "OK"
    node.emulator.qmeventd._waiting[104][0].set()
    until = time.monotonic() + 5
    while (ended := node.run("POST", f"{vm}/snapshot", snapname="s1")) == "OK" and time.monotonic() < until:
        node.run("DELETE", f"{vm}/snapshot/s1")
    assert ended == timeout
    upid = node.call("POST", f"{vm}/status/stop")
    assert (node.ended(upid), node.log(upid)) == (timeout, ["trying to acquire lock...", f"TASK ERROR: {timeout}"])
    with pytest.raises(ApiError, match="got timeout"):
        node.call("PUT", f"{vm}/config", {"name": "never"})
    node.emulator.qmeventd.close()
    assert node.run("POST", f"{vm}/status/stop") == "OK"


def test_whoever_looks_before_he_starts_it_again_has_no_lock() -> None:
    node = Node(state_with(qmeventd={"after": 5, "waits": 30}, lock_seconds=0.2))
    vm = "/nodes/prom/qemu/104"
    assert node.run("POST", f"{vm}/status/stop") == "OK"
    assert node.get(f"{vm}/status/current")["status"] == "stopped"
    assert node.run("POST", f"{vm}/status/start") == "OK"
    assert node.run("POST", f"{vm}/status/stop") == "OK"


def test_a_running_task_is_interrupted(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(power, "PING_SECONDS", 0.01)
    node.run("POST", f"{VM}/status/start")
    upid = node.call("POST", f"{VM}/status/shutdown", {"timeout": 60})
    node.call("DELETE", f"/nodes/prom/tasks/{upid}")
    assert node.get(f"/nodes/prom/tasks/{upid}/status")["exitstatus"] == "received interrupt"
    assert status(node) == "running"
    assert node.run("POST", f"{VM}/status/stop") == "OK"


def test_what_only_root_may_say_is_refused_to_a_token(node: Node) -> None:
    token = User("root@pam", "full")
    for call, name, value in (
        ("start", "force-cpu", "max"),
        ("start", "migratedfrom", "prom"),
        ("stop", "keepActive", "1"),
        ("resume", "nocheck", "1"),
    ):
        with pytest.raises(ParameterError) as refused:
            node.call("POST", f"{VM}/status/{call}", {name: value}, token)
        assert refused.value.errors == {name: "Only root may use this option."}
    with pytest.raises(ParameterError) as refused:
        node.call("POST", f"{VM}/status/suspend", {"statestorage": "nvme"})
    assert refused.value.errors == {"todisk": "missing property - 'statestorage' requires this property"}
    newer = node.run("POST", f"{VM}/status/start", machine="pc-q35-99.0")
    assert newer == (
        "Installed QEMU version '10.0.2' is too old to run machine type 'pc-q35-99.0', please upgrade node 'prom'"
    )


def test_a_guest_can_be_paused_while_it_is_backed_up(node: Node) -> None:
    node.run("POST", f"{VM}/status/start")
    for lock, ended in (("backup", "OK"), ("migrate", "VM is locked (migrate)")):
        node.emulator.state.vms[110].config["lock"] = lock
        assert node.run("POST", f"{VM}/status/suspend") == ended
    assert node.get(f"{VM}/status/current")["qmpstatus"] == "paused"


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
    stopping = node.call("POST", f"{VM}/status/stop", {"overrule-shutdown": 1})
    assert (node.ended(stopping), node.log(stopping)[0]) == ("OK", f"overruled qmshutdown tasks: {waiting}")
    assert node.ended(waiting) == "received interrupt"
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
