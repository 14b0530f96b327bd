"""One boot of a machine: its root mounted, its network connected, systemd-nspawn around its init."""

import os
import re
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.machines.bootloader import NotBootable, read_entry
from lab.machines.cgroups import Cgroup
from lab.machines.loops import Loop
from lab.machines.network import Plug

REBOOT = 133  # nspawn's exit status when the guest requests a reboot
INSTALLER_OVERLAY = Path(__file__).parent.parent / "guest" / "installer"
SYSTEMD = "/usr/lib/systemd/systemd"
_POWER_OFF = signal.SIGRTMIN + 4  # systemd(1)
# nspawn's /sys shows the caller's network cards and the host's firmware instead of the guest's.
_SYS = (
    "mkdir -p /run/groups && mount --bind /sys/fs/cgroup /run/groups",
    "mount -t sysfs -o ro,nosuid,nodev,noexec sysfs /sys",
    "mount --bind /run/groups /sys/fs/cgroup && umount /run/groups && rmdir /run/groups",
    "[ ! -e /sys/devices/virtual/dmi ] || mount -t tmpfs tmpfs /sys/devices/virtual/dmi",
)


class UnmountBusy(Exception):
    """A file system of the machine is unexpectedly still in use."""


@dataclass(frozen=True)
class Hardware:
    """The inputs of a boot: disks by device name (`sda`), firmware, the lab's base root.

    `directory` is the machine's own on a tmpfs, `console` the file for the output of its systems.
    """

    vmid: int
    disks: Mapping[str, Loop]
    bios: str
    base: Path
    directory: Path
    cgroup: Cgroup
    console: Path


class Guest:
    """A booted system, created by `from_disk` or `installer`."""

    def __init__(self, hardware: Hardware, root: Path, init: str, plug: Plug) -> None:
        self.hardware = hardware
        self.plug = plug
        self._mount = root
        self._leader: int | None = None
        shared = hardware.directory / "shared"
        _write_start(shared, hardware.disks)
        argv = [
            *("systemd-nspawn", "--quiet", f"--machine=vm{hardware.vmid}", f"--directory={root}"),
            *("--register=no", "--keep-unit", "--capability=all", "--console=pipe", "--link-journal=no"),
            *("--resolv-conf=off", "--timezone=off", f"--network-namespace-path={plug.path}"),
            *(f"--bind-ro={hardware.base}/usr:/usr", f"--bind={shared}:/run/lab"),
            *("/run/lab/start", init),
        ]
        environment = {
            "PATH": os.environ.get("PATH", "/usr/bin:/usr/sbin"),
            "SYSTEMD_NSPAWN_LOCK": "0",
            "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1",
        }
        with hardware.console.open("ab") as output:
            self._process = subprocess.Popen(
                hardware.cgroup.joining(argv), stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment
            )

    @classmethod
    def from_disk(cls, hardware: Hardware, plug: Plug) -> "Guest":
        """Boot the first bootable disk. Raises NotBootable."""
        reason = "no disk"
        for name, loop in hardware.disks.items():
            try:
                root, init = _mount_disk(hardware, name, loop)
            except NotBootable as error:
                reason = f"{name}: {error}"
                continue
            return cls(hardware, root, init, plug)
        raise NotBootable(reason)

    @classmethod
    def installer(cls, hardware: Hardware, plug: Plug) -> "Guest":
        """Boot the installer that kexec jumps into: the base root in memory, with the keys that kexec was given."""
        return cls(hardware, _make_installer(hardware), SYSTEMD, plug)

    def wait(self) -> int:
        """Wait for the end and unmount the root: 0 off, REBOOT, anything else a crash. Raises UnmountBusy."""
        status = self._process.wait()
        self.hardware.cgroup.kill()  # processes started by agent calls, or left by a crashed nspawn
        self.hardware.cgroup.clear()
        self.plug.unplug()
        _unmount(self._mount)
        return status

    def kill(self) -> None:
        """Kill all processes at once. Killing only nspawn would orphan its guest."""
        while self._process.poll() is None:  # again, in case it joins the group only now
            self.hardware.cgroup.kill()
            time.sleep(0.005)

    def power_button(self) -> None:
        """Power off like the agent's guest-shutdown."""
        leader = self.leader
        if leader:
            os.kill(leader, _POWER_OFF)

    @property
    def leader(self) -> int | None:
        """Return the guest's PID 1 as seen from here; None before its start and after its end."""
        if self._leader is None or not _has_namespaces(self._leader):
            self._leader = next(filter(_is_init, self.hardware.cgroup.processes()), None)
        return self._leader

    def runs(self, name: str) -> bool:
        """Return whether a process with that comm runs in the guest."""
        return any(_comm(pid) == name for pid in self.hardware.cgroup.processes())

    def command(self, argv: Sequence[str], *, pid_namespace: bool = True) -> list[str]:
        """Return an argv that runs `argv` as root in the guest's control group. Raises ProcessLookupError."""
        leader = self.leader
        if leader is None:
            raise ProcessLookupError("no guest")
        spaces = ["-m", "-u", "-i", "-n", *(["-p"] if pid_namespace else [])]
        return self.hardware.cgroup.joining(["nsenter", "-t", str(leader), *spaces, "-r", "-w", *argv])


def _is_init(pid: int) -> bool:
    """Return whether the process is PID 1 of a namespace below ours."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    match = re.search(r"^NSpid:\s+(.+)$", status, re.MULTILINE)
    numbers = match[1].split() if match else []
    return len(numbers) > 1 and numbers[-1] == "1" and _has_namespaces(pid)


def _has_namespaces(pid: int) -> bool:
    """Return whether the process lives and is not about to end, so that others can enter its namespaces."""
    try:
        return Path(f"/proc/{pid}/ns/ipc").exists()
    except OSError:
        return False


def _comm(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().rstrip("\n")
    except OSError:
        return ""


def _write_start(shared: Path, disks: Mapping[str, Loop]) -> None:
    """Write the script that runs as PID 1 before init: it adds device nodes missing in nspawn's /dev, and a separate
    /sys.
    """
    nodes = [f"mknod -m 660 /dev/{name} b {loop.major_minor[0]} {loop.major_minor[1]}" for name, loop in disks.items()]
    lines = ["#!/usr/bin/sh", "export PATH=/usr/bin:/usr/sbin", "mknod -m 666 /dev/fuse c 10 229", *nodes, *_SYS]
    start = shared / "start"
    start.write_text("\n".join([*lines, "udevadm trigger", 'exec "$@"', ""]))
    start.chmod(0o755)


def _mount_disk(hardware: Hardware, name: str, loop: Loop) -> tuple[Path, str]:
    """Mount the root of the disk's boot entry; return it and init. Raises NotBootable."""
    loop.flush()
    entry = read_entry(loop.image, hardware.bios)
    subprocess.run(["partx", "-u", loop.device], capture_output=True)  # no-op if the kernel reads the tables
    for part in entry.roots:
        numbers = loop.partition(part.number)
        if numbers is None:
            continue
        root = _mount(hardware, f"{name}{part.number}", numbers)
        # init may be a link into the store, or below /usr, which the lab provides
        if entry.init.startswith("/usr/") or os.path.lexists(root / entry.init.lstrip("/")):
            _make_links(root)
            return root, entry.init
        _unmount(root)
    raise NotBootable(f"entry {entry.name}: no file system has {entry.init}")


def _mount(hardware: Hardware, name: str, numbers: tuple[int, int]) -> Path:
    """Mount a partition under the guest's name for it: the mount table records the source as given."""
    place = hardware.directory
    root = place / "root"
    root.mkdir(exist_ok=True)
    (place / "dev").mkdir(exist_ok=True)
    node = place / "dev" / name
    node.unlink(missing_ok=True)
    os.mknod(node, stat.S_IFBLK | 0o600, os.makedev(*numbers))
    busybox = place / "busybox"
    if not busybox.exists():
        # In a child: a program that we hold open for writing is "busy" while another thread forks.
        subprocess.run(["cp", hardware.base / "usr/bin/busybox", busybox], check=True)
    done = subprocess.run(
        ["chroot", str(place), "/busybox", "mount", "-t", "ext4", f"/dev/{name}", "/root"],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise NotBootable(f"{name}: {done.stderr.strip()}")
    return root


def _make_links(root: Path) -> None:
    """Create what every system here needs: links to the base's programs, and mount points."""
    for directory in ("usr", "dev", "proc", "sys", "run", "tmp", "var", "etc"):
        (root / directory).mkdir(exist_ok=True)
    for link in ("bin", "sbin", "lib", "lib64"):
        if not os.path.lexists(root / link):
            (root / link).symlink_to(f"usr/{link}")


def _make_installer(hardware: Hardware) -> Path:
    """Create an overlay on the base; its upper half is the machine's memory."""
    memory = hardware.directory / "memory"
    memory.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", memory], check=True)
    for name in ("upper", "work", "root"):
        (memory / name).mkdir()
    upper = memory / "upper"
    shutil.copytree(INSTALLER_OVERLAY, upper, dirs_exist_ok=True)
    units = upper / "etc/systemd/system/multi-user.target.wants"
    units.mkdir(parents=True)
    (units / "qemu-guest-agent.service").symlink_to("/usr/lib/systemd/system/qemu-guest-agent.service")
    brought = hardware.directory / "shared" / "kexec"
    (upper / "etc/ssh").mkdir(exist_ok=True)
    for key in brought.glob("ssh_host_*"):
        shutil.copy(key, upper / "etc/ssh")
    (upper / "root").mkdir(mode=0o700)
    (upper / "root/.ssh").mkdir(mode=0o700)
    shutil.copy(brought / "authorized_keys", upper / "root/.ssh/authorized_keys")
    (upper / "root/.ssh/authorized_keys").chmod(0o600)
    layers = f"lowerdir={hardware.base},upperdir={upper},workdir={memory / 'work'}"
    subprocess.run(["mount", "-t", "overlay", "-o", layers, "overlay", memory / "root"], check=True)
    return memory / "root"


def _unmount(root: Path) -> None:
    """Unmount a root and the memory behind it. Raises UnmountBusy."""
    for mount in (root, root.parent) if root.parent.name == "memory" else (root,):
        end = time.monotonic() + 5
        while True:
            done = subprocess.run(["umount", mount], capture_output=True, text=True)
            if done.returncode == 0:
                break
            if time.monotonic() > end:
                raise UnmountBusy(done.stderr.strip())
            time.sleep(0.02)
