"""Machines of the lab without its API, in namespaces of their own: they run beside a lab that is up."""

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lab import setup
from lab.control import clean
from lab.places import Places, cache_directory

CHECKOUT = Path(__file__).parent.parent.parent
DISK = 5 << 30


def until(done: Callable[[], Any], seconds: float = 20) -> Any:
    """What `done` returns once that is true; fails the test after the deadline."""
    end = time.monotonic() + seconds
    while not (result := done()):
        assert time.monotonic() < end, f"waited {seconds} s in vain"
        time.sleep(0.03)
    return result


class MachineError(Exception):
    """What the backend raised: its class's name, and the text."""


class Machines:
    """The backend, driven from outside its namespaces."""

    def __init__(self, directory: Path) -> None:
        self.places = Places(directory)
        self.places.state.mkdir(parents=True)
        self.key = directory / "key"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", self.key], check=True)
        driver = Path(__file__).with_name("machines_driver.py")
        self.process = subprocess.Popen(
            ["unshare", "-p", "-f", "--kill-child", "-m", "-n", "--mount-proc", sys.executable, driver, directory],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=(directory / "driver.log").open("w"),
            text=True,
            env=os.environ | {"PYTHONPATH": str(CHECKOUT)},
        )
        assert self._line() == "ready", (directory / "driver.log").read_text()
        self.pid = int(Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text())
        self._number = itertools.count()

    def _line(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline().strip()

    def call(self, name: str, *arguments: Any) -> Any:
        """One call of the backend. Raises MachineError."""
        number = next(self._number)
        assert self.process.stdin
        self.process.stdin.write(json.dumps({"id": number, "call": name, "args": arguments}) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self._line())
        assert answer["id"] == number
        if "error" in answer:
            raise MachineError(answer["error"], answer["text"])
        return answer["result"]

    def boot(self, vmid: int, **config: str) -> None:
        """Clone the template and start it with a cloud-init drive like Proxmox's."""
        disk = f"nvmeprom:vm-{vmid}-disk-0"
        self.call("clone_volume", "nvmeprom:base-9002-disk-1", disk, 4 << 30)
        self.call("resize_volume", disk, DISK)
        self.start(vmid, **config)

    def start(self, vmid: int, **config: str) -> None:
        """Switch on what was cloned before."""
        defaults = {"bios": "ovmf", "scsi0": f"nvmeprom:vm-{vmid}-disk-0,size=5G", "boot": "order=scsi0"}
        drive = f"nvmeprom:vm-{vmid}-cloudinit,media=cdrom"
        network = f"version: 1\nconfig:\n    - type: physical\n      name: eth0\n      mac_address: '{mac(vmid)}'\n"
        cloudinit = {
            "user-data": f"#cloud-config\nhostname: vm{vmid}\nuser: deploy\nssh_authorized_keys:\n"
            f"  - {self.key.with_suffix('.pub').read_text()}",
            "meta-data": f"instance-id: {vmid}-1\n",
            "network-config": network + "      subnets:\n      - type: dhcp4\n",
        }
        net0 = f"virtio={mac(vmid).upper()},bridge=vmbr0"
        self.call("start", vmid, {**defaults, "ide2": drive, "net0": net0, **config}, cloudinit)

    def agent(self, vmid: int, command: str, /, **parameters: Any) -> Any:
        return self.call("agent", vmid, command, parameters)

    def agent_answers(self, vmid: int) -> bool:
        try:
            return bool(self.agent(vmid, "ping") == {})
        except MachineError as error:
            if error.args[0] != "AgentAbsent":
                raise
            return False

    def told(self, vmid: int, command: str, key: str) -> str | None:
        """One value of what an agent's command returns; None while there is no agent."""
        try:
            found: str | None = self.agent(vmid, command).get(key)
        except MachineError as error:
            if error.args[0] != "AgentAbsent":
                raise
            return None
        return found

    def in_installer(self, vmid: int) -> str:
        """Wait for the installer; returns its address."""
        until(lambda: self.told(vmid, "get-osinfo", "variant-id") == "installer")
        return self.ready(vmid, "root")

    def execute(self, vmid: int, *argv: str) -> dict[str, Any]:
        """guest-exec and its result."""
        pid = self.agent(vmid, "exec", command=argv)["pid"]

        def ended() -> dict[str, Any] | None:
            status: dict[str, Any] = self.agent(vmid, "exec-status", pid=pid)
            return status if status["exited"] else None

        found: dict[str, Any] = until(ended)
        return found

    def address(self, vmid: int) -> str | None:
        """The IPv4 address of net0's card, once DHCP has given it."""
        try:
            interfaces = self.agent(vmid, "network-get-interfaces")
        except MachineError:
            return None
        card = next(item for item in interfaces if item["hardware-address"] == mac(vmid))
        return next((a["ip-address"] for a in card.get("ip-addresses", []) if a["ip-address-type"] == "ipv4"), None)

    def inside(self, *argv: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
        """A command in the namespaces."""
        enter = ["nsenter", "-t", str(self.pid), "-p", "-m", "-n"]
        return subprocess.run([*enter, *argv], capture_output=True, text=True, **options)

    def ssh(self, user: str, address: str, script: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """A script on a machine, through SSH."""
        flags = ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR", "ConnectTimeout=3"]
        argv: list[str | Path] = ["ssh", "-i", self.key, *(f"-o{flag}" for flag in flags), f"{user}@{address}", script]
        return self.inside(*argv, **options)

    def host_key(self, address: str) -> str:
        """The ed25519 key that the machine shows."""
        return self.inside("ssh-keyscan", "-t", "ed25519", address).stdout.partition(" ssh-ed25519 ")[2].strip()

    def ready(self, vmid: int, user: str = "deploy") -> str:
        """Wait for the agent, cloud-init where there is one, and SSH; returns the address."""
        until(lambda: self.agent_answers(vmid))
        address: str = until(lambda: self.address(vmid))
        if user != "root":
            assert self.execute(vmid, "/usr/bin/cloud-init", "status", "--wait")["exitcode"] == 0
        until(lambda: self.ssh(user, address, "true").returncode == 0)
        return address

    def kill(self) -> None:
        """SIGKILL to what owns it all, as a crash would."""
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def close(self) -> None:
        if self.process.poll() is None:
            self.kill()
        clean(self.places)


def mac(vmid: int) -> str:
    return f"bc:24:11:00:00:{vmid % 100:02x}"


@pytest.fixture(scope="session")
def lab_parts() -> setup.Parts:
    """What set-up makes; skips nothing: without root there is no lab to test."""
    assert os.geteuid() == 0, "the lab's machines need root"
    return setup.prepare(cache_directory(), print)


@pytest.fixture
def machines(lab_parts: setup.Parts, tmp_path: Path) -> Iterator[Machines]:
    made = Machines(tmp_path / "checkout")
    yield made
    made.close()
    shutil.rmtree(made.places.state)
