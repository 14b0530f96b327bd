"""Starts and ends the lab of this checkout, and talks to the running one."""

import contextlib
import ctypes
import fcntl
import http.client
import json
import os
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lab import setup, start
from lab.errors import LabError
from lab.fleet_copy import fingerprint, make_fleet
from lab.machines.cgroups import ROOT, remove_tree
from lab.machines.network import GATEWAY
from lab.places import Places, cache_directory
from lab.setup import Progress
from lab.supervisor import Orders

PORT = 8006
FIRST_VMID = 110
CLONE_NEWNET = 0x40000000


@dataclass(frozen=True)
class Running:
    """The running lab: `pid` is its PID 1 as seen from here; `started` distinguishes it from a later process with that
    number.
    """

    pid: int
    started: str
    hosts: int
    nix_bin: str
    nix_conf: str
    tools: str

    @classmethod
    def find(cls, places: Places) -> "Running | None":
        try:
            running = cls(**json.loads(places.running.read_text()))
        except (FileNotFoundError, ValueError, TypeError):
            return None
        return running if _start_time(running.pid) == running.started else None

    @classmethod
    def require(cls, places: Places) -> "Running":
        """Return the running lab; raises LabError if it is not running."""
        running = cls.find(places)
        if running is None:
            raise LabError("the lab is not up; start it with: python -m lab up")
        return running

    def environment(self, places: Places) -> dict[str, str]:
        """Return the environment of commands in the lab: its fleet, token, home and Nix, without references to the
        outside.
        """
        gone = (
            "XDG_STATE_HOME",
            "XDG_CONFIG_HOME",
            "XDG_DATA_HOME",
            "SSH_AUTH_SOCK",
            "NIX_REMOTE",
            "NIX_PATH",
            "SOPS_CONFIG",
        )
        kept = {
            key: value for key, value in os.environ.items() if key not in gone and not key.lower().endswith("_proxy")
        }
        here = [self.nix_bin, self.tools, str(Path(sys.executable).parent)]
        path = [*here, *(part for part in kept.get("PATH", "").split(":") if part and part not in here)]
        for sbin in ("/usr/local/sbin", "/usr/sbin", "/sbin"):
            path += [] if sbin in path else [sbin]
        return kept | {
            "FLEET": str(places.fleet),
            "PROXMOX_TOKEN_FILE": str(places.token),
            "HOME": str(places.home),
            "NIX_CONF_DIR": self.nix_conf,
            "PATH": ":".join(path),
        }

    def inside(self, argv: list[str], cwd: Path) -> list[str]:
        """Return an argv that runs `argv` in the lab's namespaces, PID namespace included: it ends with the lab."""
        enter = ["nsenter", "-t", str(self.pid), "-p", "-m", "-n", "--"]
        return [*enter, "sh", "-c", 'cd "$0" && exec "$@"', str(cwd), *argv]


def _start_time(pid: int) -> str | None:
    """Return field 22 of /proc/PID/stat; None without such a process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return None


@contextlib.contextmanager
def exclusive(places: Places) -> Iterator[None]:
    """Allow one `up`, `down` or `reset` at a time. Raises LabError unless run as root."""
    if os.geteuid() != 0:
        raise LabError("the lab creates namespaces and loop devices: run it as root")
    places.state.mkdir(exist_ok=True)
    with (places.state / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def up(places: Places, hosts: int, progress: Progress) -> Running:
    """Start the lab unless it is running; return when its API answers. Raises LabError."""
    with exclusive(places):
        lab = Running.find(places)
        if lab:
            if lab.hosts != hosts:
                raise LabError(f"the lab is up with {lab.hosts} host(s); first: python -m lab down")
            _make_fleet(places, lab)  # the `up` that started it may have been killed before it did this
            return lab
        clean(places)
        parts = setup.prepare(cache_directory(), progress)
        progress("starting")
        _write_state(places, hosts)
        orders = Orders(str(parts.base), str(parts.template), parts.nix.of_the_lab)
        (places.state / "supervisor.json").write_text(json.dumps(asdict(orders)))
        running = _start_supervisor(places, hosts, parts)
        try:
            _make_fleet(places, running)
        except LabError:
            _end(places, running)
            raise
        return running


def _start_supervisor(places: Places, hosts: int, parts: setup.Parts) -> Running:
    """Start the supervisor detached, wait until it is ready, record it, then let it outlive us. Raises LabError.

    Until our confirmation arrives it ends when we do, so a killed `up` never leaves an unrecorded lab.
    """
    report, reporting = os.pipe()
    listening, word = os.pipe()
    with places.lab_log.open("w") as log:
        process = subprocess.Popen(
            ["unshare", "-p", "-f", "--kill-child", "-m", "-n", "--mount-proc"]
            + [sys.executable, "-m", "lab.supervisor", str(reporting), str(listening)],
            cwd=places.checkout,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            pass_fds=[reporting, listening],
        )
    os.close(reporting)
    os.close(listening)
    with os.fdopen(report) as lines, os.fdopen(word, "w") as go:
        line = lines.readline().strip()
        if line != "ready":
            process.kill()
            process.wait()
            last = places.lab_log.read_text().strip().splitlines()[-1:]
            raise LabError(f"the lab did not start: {line or ' '.join(last) or 'no output'} (see {places.lab_log})")
        pid = int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0])
        nix = parts.nix
        running = Running(pid, _start_time(pid) or "", hosts, str(nix.bin), str(nix.conf), str(parts.tools))
        _write(places.running, json.dumps(asdict(running)))
        go.write("go\n")
    return running


def _write_state(places: Places, hosts: int) -> None:
    """Write keys, token and start state; existing files are kept, so the fleet's copy stays the same."""
    keys = places.home / ".ssh"
    keys.mkdir(parents=True, exist_ok=True)
    keys.chmod(0o700)
    if not (keys / "id_ed25519.pub").exists():
        (keys / "id_ed25519").unlink(missing_ok=True)
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "operator@lab", "-f", keys / "id_ed25519"], check=True
        )
    _write(places.home / ".gitconfig", "[user]\n\tname = Lab operator\n\temail = operator@lab.invalid\n")
    if not places.certificate.exists():
        with tempfile.TemporaryDirectory(dir=places.state) as folder:
            from lab.api.certificate import make_certificate  # a quarter of what importing takes

            certificate, key = make_certificate(Path(folder), GATEWAY)
            key.rename(places.certificate_key)
            certificate.rename(places.certificate)
    if not places.token.exists():
        known = f'server = "{GATEWAY}:{PORT}"\nfingerprint = "{fingerprint(places)}"\n'
        _write(places.token, f'{known}token = "{start.USER}!{start.TOKEN}={uuid.uuid4()}"\n')
    secret = places.token_line().rpartition("=")[2]
    managed = range(FIRST_VMID, FIRST_VMID + hosts)
    _write(places.state / "state.json", json.dumps(start.start_state(secret, managed)))
    places.api_log.write_text("")
    shutil.rmtree(places.consoles, ignore_errors=True)


def _write(path: Path, text: str) -> None:
    """Write the file atomically, for its owner only."""
    making = path.with_name(f"{path.name}.making")
    making.touch(0o600)
    making.write_text(text)
    making.rename(path)


def down(places: Places) -> bool:
    """End the lab and any remains of a killed one; return False if none was running."""
    with exclusive(places):
        running = Running.find(places)
        _end(places, running)
        return running is not None


def _end(places: Places, running: Running | None) -> None:
    if running:
        with contextlib.suppress(ProcessLookupError):
            os.kill(running.pid, signal.SIGKILL)  # the kernel ends everything in its PID namespace
    clean(places)


def clean(places: Places, deadline: float = 10.0) -> None:
    """Wait until nothing of an ended lab is left; remove its control groups and disks. Raises LabError."""
    end = time.monotonic() + deadline
    while left := leftovers(places):
        if time.monotonic() > end:
            raise LabError(f"left over after {deadline:.0f} s: {', '.join(left)}")
        time.sleep(0.02)
    for group in cgroups(places):
        remove_tree(group)
    places.running.unlink(missing_ok=True)
    shutil.rmtree(places.disks, ignore_errors=True)


def cgroups(places: Places) -> list[Path]:
    """Return the control groups of this checkout's lab in the host's unified hierarchy."""
    groups = (root / places.name for root in (ROOT, ROOT / "unified"))
    return [group for group in groups if group.exists()]


def leftovers(places: Places) -> list[str]:
    """List what is left of this checkout's lab: processes in its control groups, loop devices on its disks."""
    left = []
    for group in cgroups(places):
        for directory, _, _ in os.walk(group):  # skips groups that end during the search; rglob raises
            with contextlib.suppress(OSError):
                left += [f"process {pid}" for pid in (Path(directory) / "cgroup.procs").read_text().split()]
    for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
        with contextlib.suppress(OSError):
            if backing.read_text().startswith(f"{places.disks}/"):
                left.append(f"/dev/{backing.parts[3]}")
    return left


def _make_fleet(places: Places, running: Running) -> None:
    make_fleet(places, running.hosts, running.inside, running.environment(places))


def reset(places: Places, patch: dict[str, Any] | None = None) -> None:
    """Restore the start state: no machines, the initial VMs and volumes, the original fleet. Raises LabError.

    `patch`, an RFC 7396 merge patch of the API's state, applies until the next reset.
    """
    with exclusive(places):
        running = Running.require(places)
        request(places, running, "POST", "/_lab/reset", {"patch": patch or {}})
        places.api_log.write_text("")
        shutil.rmtree(places.home / ".local", ignore_errors=True)
        (places.home / ".ssh" / "known_hosts").unlink(missing_ok=True)
        _make_fleet(places, running)


def virtual_machines(places: Places, running: Running) -> list[dict[str, Any]]:
    """Return each VM's entry in the node's list (`vmid`, `name`, `status`), by VMID. Raises LabError."""
    vms = request(places, running, "GET", f"/api2/json/nodes/{start.NODE}/qemu")["data"]
    return sorted(vms, key=lambda vm: int(vm["vmid"]))


def request(places: Places, running: Running, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
    """Send one request to the emulator from inside its network and return the JSON. Raises LabError."""
    with _network_of(running.pid):
        context = ssl.create_default_context(cafile=str(places.certificate))
        connection = http.client.HTTPSConnection(GATEWAY, PORT, timeout=30, context=context)
        try:
            content = None if body is None else json.dumps(body)
            token = f"PVEAPIToken={places.token_line()}"
            connection.request(method, path, content, {"Content-Type": "application/json", "Authorization": token})
            answer = connection.getresponse()
            text = answer.read().decode(errors="replace")
        except OSError as error:
            raise LabError(f"the lab's API does not answer: {error}") from error
        finally:
            connection.close()
    try:
        data = json.loads(text or "{}")
    except ValueError:
        raise LabError(f"{path}: {answer.status} {text[:200]!r} (see {places.lab_log})") from None
    if answer.status != 200:
        raise LabError(f"{path}: {data.get('error') or data.get('message', '').strip() or answer.reason}")
    return data


@contextlib.contextmanager
def _network_of(pid: int) -> Iterator[None]:
    """Run this thread in the network namespace of a process."""
    libc = ctypes.CDLL(None, use_errno=True)
    with Path("/proc/self/ns/net").open() as ours, Path(f"/proc/{pid}/ns/net").open() as other:
        if libc.setns(other.fileno(), CLONE_NEWNET):
            raise LabError(f"cannot enter the lab's network: {os.strerror(ctypes.get_errno())}")
        try:
            yield
        finally:
            libc.setns(ours.fileno(), CLONE_NEWNET)
