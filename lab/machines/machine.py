"""A machine that is switched on: its disks attached, booted into one system after another."""

import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lab.machines import devices
from lab.machines.bootloader import NotBootable
from lab.machines.guest import REBOOT, Guest, Hardware, UnmountBusy
from lab.machines.loops import Loop
from lab.machines.network import Network, Plug

# By name: the parameters, and the effect.
FAULTS = {
    "address-changes": "vmid=N: every boot gets a different address",
    "address-moves": "vmid=N: running machines change their address now",
    "no-return": "vmid=N: a rebooting machine does not come back",
    "impostor": "HOST VMID marker=installer|clone|installed|own key=true address=true boot_id=true: HOST poses as VMID",
}

MOVE_DEADLINE = 30.0  # seconds


@dataclass
class Faults:
    """The machines' faults; each has the VMIDs that it applies to, or None for all."""

    on: dict[str, set[int] | None] = field(default_factory=dict)

    def hits(self, name: str, vmid: int) -> bool:
        """Return whether this fault applies to this machine."""
        if name not in self.on:
            return False
        chosen = self.on[name]
        return chosen is None or vmid in chosen


@dataclass(frozen=True)
class Card:
    """The network card net0 of the configuration."""

    mac: str | None
    link_down: bool

    @classmethod
    def parse(cls, net0: str | None) -> "Card":
        """Parse `virtio=BC:24:11:00:00:01,bridge=vmbr0,link_down=1`."""
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
        self._wake = threading.Event()  # it was switched off
        self.off = threading.Event()
        self._lock = threading.Lock()  # guards `guest` and `_ending` together
        shared = hardware.directory / "shared"
        (shared / "cidata").mkdir(parents=True)
        if cloudinit is not None:
            (shared / "cidata" / "cidata.json").write_text(json.dumps(cloudinit))
        self._allow_devices()
        self._thread = threading.Thread(target=self._run, name=f"vm{vmid}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Switch off immediately; the disks are free on return."""
        with self._lock:
            self._ending = True
            self._pull()
        self._thread.join()

    def reset(self) -> None:
        """Switch off immediately and boot from the disk again."""
        with self._lock:
            self._pull()

    def _pull(self) -> None:
        self._wake.set()
        if self.guest:
            self.guest.kill()

    def address_moves(self) -> None:
        """Change a running machine's address; it may have the new one some seconds later."""
        guest, mac = self.guest, self._card.mac
        if guest and mac:
            address = self._network.give_address(mac, fresh=True)
            end = time.monotonic() + MOVE_DEADLINE

            def is_due() -> bool:
                is_given = self._network.give_address(mac, fresh=False) == address
                return self.guest is guest and is_given and time.monotonic() < end

            threading.Thread(target=self._move, args=(guest.plug, address, is_due), daemon=True).start()

    def _move(self, plug: Plug, address: str, is_due: Callable[[], bool]) -> None:
        try:
            plug.move(address, is_due)
        except (OSError, subprocess.CalledProcessError) as error:  # it was switched off meanwhile
            self._say(f"its address does not move: {error}")

    def _allow_devices(self) -> None:
        try:
            devices.allow(self.hardware.cgroup.path, [loop.major_minor for loop in self.hardware.disks.values()])
        except OSError as error:  # the kernel has no BPF for control groups: the lab works, guests can access more
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
        """Boot and wait for the end; return None if it was switched off in the meantime."""
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
    """Attach the images to loop devices by the disks' names. Raises OSError, with nothing left attached."""
    loops: dict[str, Loop] = {}
    try:
        for name, image in images.items():
            loops[name] = Loop(image)
    except OSError:
        for loop in loops.values():
            loop.close()
        raise
    return loops
