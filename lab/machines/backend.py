"""The backend with real machines: disks are images, machines run in systemd-nspawn."""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from lab.backend import AgentAbsent, BackendError
from lab.errors import LabError
from lab.machines.agent import Agent
from lab.machines.cgroups import ROOT, Cgroup
from lab.machines.guest import Guest, Hardware
from lab.machines.impostor import Role, be_itself, pretend
from lab.machines.machine import FAULTS, Card, Faults, Machine, attach
from lab.machines.network import Network
from lab.machines.volumes import Volumes

BUSES = {"scsi": "sd", "sata": "sd", "ide": "sd", "virtio": "vd"}


class MachinesBackend:
    """See `lab.backend.Backend`. Run it in the lab's namespaces: it creates bridge, mounts and control groups."""

    def __init__(self, base: Path, volumes: Volumes, directory: Path, consoles: Path, name: str) -> None:
        """`directory`: on a tmpfs, for running machines; `name`: the control group's."""
        consoles.mkdir(exist_ok=True)
        self._consoles = consoles
        self._base = base
        self._volumes = volumes
        self._directory = directory
        self._cgroup = ROOT / name
        self._network = Network(directory)
        self._machines: dict[int, Machine] = {}
        self._agents: dict[int, Agent] = {}
        self._faults = Faults()
        self._lock = threading.Lock()  # guards the dictionaries
        self._powered_off: Callable[[int], None] = lambda vmid: None

    def create_volume(self, volid: str, size: int) -> None:
        self._volumes.create(volid, size)

    def clone_volume(self, source: str, target: str, size: int) -> None:
        image = self._volumes.path(source)
        for machine in list(self._machines.values()):
            for loop in machine.hardware.disks.values():
                if loop.image == image:  # what the machine wrote, as far as it would survive a power loss
                    os.sync()
                    loop.flush()
        self._volumes.clone(source, target, size)

    def resize_volume(self, volid: str, size: int) -> None:
        self._volumes.resize(volid, size)
        image = self._volumes.path(volid)
        for machine in list(self._machines.values()):
            for loop in machine.hardware.disks.values():
                if loop.image == image:
                    loop.grown()

    def rename_volume(self, source: str, target: str) -> None:
        self._volumes.rename(source, target)
        old, new = self._volumes.path(source), self._volumes.path(target)
        for machine in list(self._machines.values()):
            for loop in machine.hardware.disks.values():
                if loop.image == old:
                    loop.image = new

    def delete_volume(self, volid: str) -> None:
        self._volumes.delete(volid)

    def start(self, vmid: int, config: Mapping[str, Any], cloudinit: Mapping[str, str] | None) -> None:
        if self.running(vmid):
            raise BackendError(f"VM {vmid} already running")
        drive = {name: yaml.safe_load(text) for name, text in cloudinit.items()} if cloudinit is not None else None
        volumes = {name: volid for name, volid in disks(config).items() if self._volumes.exists(volid)}
        try:
            loops = attach({name: self._volumes.image(volid) for name, volid in volumes.items()})
        except OSError as error:
            raise BackendError(f"start failed: {error}") from error
        hardware = Hardware(
            vmid,
            loops,
            str(config.get("bios", "seabios")),
            self._base,
            self._directory / "machines" / str(vmid),
            Cgroup(self._cgroup / f"vm{vmid}"),
            self._consoles / f"vm{vmid}.log",
        )
        card = Card.parse(config.get("net0"))
        with self._lock:
            self._agents[vmid] = Agent()
            self._machines[vmid] = Machine(vmid, hardware, card, self._network, self._faults, drive, self._gone)

    def resume_guest(self, vmid: int, agent: bool) -> None:
        """Boot the machine: memory is not saved here."""

    def _gone(self, vmid: int) -> None:
        with self._lock:
            self._machines.pop(vmid, None)
        self._powered_off(vmid)

    def stop(self, vmid: int) -> None:
        machine = self._machines.get(vmid)
        if machine:
            machine.stop()
            with self._lock:
                self._machines.pop(vmid, None)

    def shutdown(self, vmid: int, timeout: float, check: Callable[[], None] = lambda: None) -> bool:
        machine = self._machines.get(vmid)
        if machine is None:
            return True
        end = time.monotonic() + timeout
        signalled = False
        while not machine.off.wait(0.05):
            if time.monotonic() >= end:
                return False
            check()
            if not signalled:
                with contextlib.suppress(AgentAbsent):  # it ignores ACPI, like a guest without logind
                    self.agent(vmid, "shutdown", {})
                    signalled = True
        return True

    def reset(self, vmid: int) -> None:
        machine = self._machines.get(vmid)
        if machine is None:
            raise BackendError(f"VM {vmid} not running")
        machine.reset()

    def running(self, vmid: int) -> bool:
        return vmid in self._machines

    def agent(self, vmid: int, command: str, params: Mapping[str, Any]) -> Any:
        machine = self._machines.get(vmid)
        if machine is None:
            raise AgentAbsent
        return self._agents[vmid].call(machine.guest, command, params)

    def fault(self, name: str, on: bool, params: Mapping[str, Any]) -> bool:
        if name not in FAULTS:
            return False
        vmid = int(params["vmid"]) if params.get("vmid") else None
        if name == "impostor":
            self._impostor(int(params["vmid"]), on, params)
        elif name == "address-moves":
            for machine in list(self._machines.values()):
                if on and vmid in (None, machine.vmid):
                    machine.address_moves()
        elif not on:
            self._faults.on.pop(name, None)
        else:
            self._faults.on[name] = None if vmid is None else (self._faults.on.get(name) or set()) | {vmid}
        return True

    def _impostor(self, vmid: int, on: bool, params: Mapping[str, Any]) -> None:
        if on:
            pretend(self._guest(vmid), self._guest(int(params["other"])), Role.of(params))
        else:
            be_itself(self._guest(vmid))

    def _guest(self, vmid: int) -> Guest:
        machine = self._machines.get(vmid)
        if machine is None or machine.guest is None:
            raise LabError(f"vm {vmid} is not up")
        return machine.guest

    def reset_all(self) -> None:
        with self._lock:
            machines, self._machines, self._agents = list(self._machines.values()), {}, {}
        stopping = [threading.Thread(target=machine.stop) for machine in machines]
        for thread in stopping:
            thread.start()
        for thread in stopping:
            thread.join()
        self._faults.on.clear()
        self._volumes.reset()
        self._network.forget()

    def on_power_off(self, callback: Callable[[int], None]) -> None:
        self._powered_off = callback


def disks(config: Mapping[str, Any]) -> dict[str, str]:
    """Map device names to volids in boot order: scsi0 is sda, virtio0 vda; cloud-init drives and CDs are skipped.

    Letters follow the slots (scsi1 is sdb even without scsi0), which is simpler than a kernel's probing.
    """
    devices = {}
    for key, value in config.items():
        bus = key.rstrip("0123456789")
        if bus in BUSES and key != bus and isinstance(value, str) and "media=cdrom" not in value:
            volid = value.split(",")[0].removeprefix("file=")
            if ":" in volid:
                devices[key] = (f"{BUSES[bus]}{chr(ord('a') + int(key[len(bus) :]))}", volid)
    order = str(config.get("boot", "")).removeprefix("order=").split(";")
    slots = sorted(devices, key=lambda slot: (order.index(slot) if slot in order else len(order), slot))
    return dict(devices[slot] for slot in slots)
