"""A machine that is switched on: its disks attached, one system after another booted in it."""

import json
import shutil
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lab.machines import devices
from lab.machines.bootloader import NotBootable
from lab.machines.guest import REBOOT, Guest, Hardware, UnmountBusy
from lab.machines.loops import Loop
from lab.machines.network import Network, Plug


@dataclass
class Faults:
    """The machines' faults; each holds the VMIDs it is on for, or None for every one."""

    on: dict[str, set[int] | None] = field(default_factory=dict)

    def hits(self, name: str, vmid: int) -> bool:
        """Whether this fault is on for this machine."""
        if name not in self.on:
            return False
        chosen = self.on[name]
        return chosen is None or vmid in chosen


@dataclass(frozen=True)
class Card:
    """net0 as the configuration has it."""

    mac: str | None
    link_down: bool

    @classmethod
    def parse(cls, net0: str | None) -> "Card":
        """From `virtio=BC:24:11:00:00:01,bridge=vmbr0,link_down=1`."""
        parts = dict(part.partition("=")[::2] for part in (net0 or "").split(",") if part)
        mac = next((value for value in parts.values() if value.count(":") == 5), None)
        return cls(mac, parts.get("link_down") == "1")


class Machine:
    """From power on to power off. `stop` is the only way to end it from outside."""

    def __init__(
        self,
        vmid: int,
        hardware: Hardware,
        card: Card,
        network: Network,
        faults: Faults,
        cloudinit: Mapping[str, Any] | None,
        powered_off: Callable[[int], None],
    ) -> None:
        self.vmid = vmid
        self.hardware = hardware
        self.guest: Guest | None = None
        self._card = card
        self._network = network
        self._faults = faults
        self._powered_off = powered_off
        self._ending = False
        self._wake = threading.Event()  # the plug was pulled
        self.off = threading.Event()
        self._lock = threading.Lock()  # over `guest` and `_ending` together
        shared = hardware.directory / "shared"
        (shared / "cidata").mkdir(parents=True)
        if cloudinit is not None:
            (shared / "cidata" / "cidata.json").write_text(json.dumps(cloudinit))
        self._allow_devices()
        self._thread = threading.Thread(target=self._run, name=f"vm{vmid}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Pull the plug; the disks are free when it returns."""
        with self._lock:
            self._ending = True
            self._pull()
        self._thread.join()

    def reset(self) -> None:
        """Pull the plug and boot from the disk again."""
        with self._lock:
            self._pull()

    def _pull(self) -> None:
        self._wake.set()
        if self.guest:
            self.guest.kill()

    def address_moves(self) -> None:
        """A running machine's address changes under it."""
        guest = self.guest
        if guest and self._card.mac:
            self._network.give_address(self._card.mac, fresh=True)
            guest.plug.replug()

    def _allow_devices(self) -> None:
        try:
            devices.allow(self.hardware.cgroup.path, [loop.major_minor for loop in self.hardware.disks.values()])
        except OSError as error:  # a kernel without BPF for control groups: the lab works, guests see more
            self._say(f"no device allow-list: {error}")

    def _run(self) -> None:
        hop = "disk"
        switched_off = False
        while not self._ending:
            try:
                status = self._boot(hop)
            except (NotBootable, UnmountBusy, OSError) as error:
                self._say(str(error))
                status = None
            if status == 0 and not self._ending:
                switched_off = True
                break
            go = self.hardware.directory / "shared" / "kexec" / "go"
            if status == REBOOT and not self._faults.hits("no-return", self.vmid):
                hop = "installer" if go.exists() else "disk"
                go.unlink(missing_ok=True)
                continue
            if not self._wake.is_set():
                self._say(f"the machine hangs (status {status})")
            self._wake.wait()
            self._wake.clear()
            hop = "disk"
            go.unlink(missing_ok=True)
        self._release()
        self.off.set()
        if switched_off:
            self._powered_off(self.vmid)

    def _boot(self, hop: str) -> int | None:
        """Boot and wait for the end; None when the plug was pulled meanwhile."""
        plug = self._plug()
        with self._lock:
            if self._ending:
                plug.unplug()
                return None
            self._say(f"boots from {hop}")
            make = Guest.installer if hop == "installer" else Guest.from_disk
            try:
                self.guest = make(self.hardware, plug)
            except BaseException:
                plug.unplug()
                raise
        try:
            return self.guest.wait()
        finally:
            self.guest = None

    def _plug(self) -> Plug:
        if self._card.mac:
            self._network.give_address(self._card.mac, fresh=self._faults.hits("address-changes", self.vmid))
        return self._network.plug(self.vmid, self._card.mac, self._card.link_down)

    def _release(self) -> None:
        for name, loop in self.hardware.disks.items():
            if not loop.close():
                self._say(f"{name} is still in use")
        self.hardware.cgroup.remove()
        shutil.rmtree(self.hardware.directory, ignore_errors=True)

    def _say(self, text: str) -> None:
        print(f"vm {self.vmid}: {text}", file=sys.stderr, flush=True)


def attach(images: Mapping[str, Path]) -> dict[str, Loop]:
    """Loop devices for the images, by the disks' names. Raises OSError, with nothing left attached."""
    loops: dict[str, Loop] = {}
    try:
        for name, image in images.items():
            loops[name] = Loop(image)
    except OSError:
        for loop in loops.values():
            loop.close()
        raise
    return loops
