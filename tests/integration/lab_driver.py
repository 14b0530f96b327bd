"""Drives a lab of the tests' own: through its commands, as a script of a user would, and past the code under test."""

import io
import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from lab import cli, control
from lab.control import Running
from lab.places import Places
from tests.preloaded.programs import preloaded

CHECKOUT = Path(__file__).resolve().parents[2]
RUN_DEADLINE = 240.0  # seconds for one command of the lab
ROWS = (
    *("validate", "clone", "configure", "resize", "cloud-init", "start", "address"),
    *("installer", "disko", "install", "reboot", "verify", "secrets"),
)
END = "--> Results:"
_QUIET = {"NO_COLOR": "1", "PYINFRA_PROGRESS": "off"}
_AT_HAND = ("break", "reset")


def starts(row: str) -> Callable[[str], bool]:
    """Whether a line of pyinfra's output says that this row begins."""
    pattern = re.compile(rf"--> Starting operation: (\S+ \| )?{row}:")
    return lambda line: pattern.search(line) is not None


def rows_of(output: str, verdict: str) -> list[str]:
    """The rows under which some host's line reads exactly so (`Success`, `No changes`)."""
    found, row = [], ""
    for line in output.splitlines():
        begins = re.search(r"--> Starting operation: (?:\S+ \| )?([\w-]+):", line)
        row = begins[1] if begins else row
        if re.fullmatch(rf"\s*\[\S+\]\s+{verdict}\s*", line):
            found.append(row)
    return found


@dataclass(frozen=True)
class Ended:
    """How a command ended; stdout and stderr together, in the order they came."""

    status: int
    output: str
    seconds: float

    def rows(self, verdict: str) -> list[str]:
        return rows_of(self.output, verdict)

    def says(self, host: str) -> list[str]:
        """What was said of one host, line by line, without pyinfra's own words."""
        lines = (re.fullmatch(rf"\s*\[{re.escape(host)}\]\s+(.*?)\s*", line) for line in self.output.splitlines())
        return [line[1] for line in lines if line and line[1] not in ("Connected", "No changes", "Success")]


@dataclass
class Run:
    """A command under way; `output` is what it has said so far."""

    process: "subprocess.Popen[str]"
    output: str = ""
    began: float = field(default_factory=time.monotonic)

    def _lines(self) -> Iterator[str]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.output += line
            yield line

    def until(self, condition: Callable[[str], bool]) -> None:
        """Return as soon as a line comes that `said` likes; AssertionError when the command ends before."""
        assert any(map(condition, self._lines())), f"it ended before:\n{self.output}"

    def end(self) -> Ended:
        """Wait for its end."""
        for _ in self._lines():
            continue
        return Ended(self.process.wait(10), self.output, time.monotonic() - self.began)

    def kill(self) -> None:
        """SIGKILL for every process of its session; what was forked for it (tests/preloaded) ends with it."""
        for entry in Path("/proc").glob("[0-9]*"):
            with suppress(ProcessLookupError, PermissionError):
                if os.getsid(int(entry.name)) == self.process.pid:
                    os.kill(int(entry.name), signal.SIGKILL)
        self.process.wait(10)
        if self.process.stdout and not self.process.stdout.closed:
            self._wait_for_others()
            self.process.stdout.close()

    def _wait_for_others(self) -> None:
        """Return when nobody can write to our output any more, or after some seconds."""
        assert self.process.stdout is not None
        end = time.monotonic() + 5
        descriptor = self.process.stdout.fileno()
        while select.select([descriptor], [], [], max(end - time.monotonic(), 0))[0] and os.read(descriptor, 1 << 16):
            continue


@dataclass(frozen=True)
class LabPlaces(Places):
    """Where this lab keeps things, whatever NIXHERD_LAB says."""

    directory: Path

    @property
    def state(self) -> Path:
        return self.directory


@dataclass(frozen=True)
class Lab:
    """A lab whose state lives in `state`, beside and not in the one of `make lab up`."""

    state: Path

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "NIXHERD_LAB": str(self.state), **_QUIET}

    @property
    def places(self) -> Places:
        return LabPlaces(CHECKOUT, self.state)

    @property
    def kept(self) -> Path:
        """What nixherd keeps of the fleet between runs."""
        return self.state / "home/.local/state/nixherd/homelab"

    def argv(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "lab", *words]

    # commands

    def __call__(self, *words: str, check: bool = True, timeout: float = RUN_DEADLINE) -> Ended:
        """`python -m lab WORDS`; AssertionError with its output when it fails, unless `check` is False."""
        if words[0] in _AT_HAND:
            return self._at_hand(words, check)
        return self._ended(words, self.argv(*words), self.environment, check, timeout)

    def _at_hand(self, words: Sequence[str], check: bool) -> Ended:
        """The same without a Python that starts for it, which takes longer than what it then does."""
        began, condition = time.monotonic(), io.StringIO()
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(condition), redirect_stderr(condition):
            patch.setenv("NIXHERD_LAB", str(self.state))
            status = cli.main(list(words))
        assert not check or status == 0, f"{words} ended with {status}:\n{condition.getvalue()}"
        return Ended(status, condition.getvalue(), time.monotonic() - began)

    def _ended(
        self, words: Sequence[str], argv: list[str], environment: Mapping[str, str], check: bool, timeout: float
    ) -> Ended:
        began = time.monotonic()
        done = subprocess.run(
            argv,
            cwd=CHECKOUT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
        )
        assert not check or done.returncode == 0, f"{words} ended with {done.returncode}:\n{done.stdout}"
        return Ended(done.returncode, done.stdout, time.monotonic() - began)

    def run(self, *command: str, check: bool = True, env: Mapping[str, str] | None = None) -> Ended:
        """Run a command inside the lab.

        What it starts of ours is forked by a program that has imported it (tests/preloaded): as processes of their own
        and from `main()` on. REAL_PROGRAMS=1 has them started and loaded as people start them.
        """
        argv, environment = self.inside(*command)
        environment = self.preloaded(environment) if "PATH" not in (env or {}) else environment
        return self._ended(command, argv, environment | dict(env or {}), check, RUN_DEADLINE)

    @property
    def _preloaded_place(self) -> Path:
        return self.state / f"preloaded-{Running.require(self.places).started}"

    def preloaded(self, environment: dict[str, str]) -> dict[str, str]:
        """The environment of a command inside the lab, with our programs forked."""
        running = Running.require(self.places)
        return preloaded(self._preloaded_place, environment, lambda argv: running.inside(argv, CHECKOUT))

    def inside(self, *command: str) -> tuple[list[str], dict[str, str]]:
        """Argv and environment of what `python -m lab run -- COMMAND` becomes.

        Without a Python that starts for it: a seventh of the time of all tests went there.
        """
        running = Running.require(self.places)
        environment = running.environment(self.places) | {"NIXHERD_LAB": str(self.state), **_QUIET}
        return running.inside(list(command), CHECKOUT), environment

    def pyinfra(self, *words: str, check: bool = True, env: Mapping[str, str] | None = None) -> Ended:
        return self.run("pyinfra", *words, check=check, env=env)

    def provision(self, limit: str = "dev", *options: str, check: bool = True) -> Ended:
        return self.pyinfra(*provision_words(limit, *options), check=check)

    def provisioning(self, limit: str = "dev", *options: str) -> "AbstractContextManager[Run]":
        return self.under_way("pyinfra", *provision_words(limit, *options))

    @contextmanager
    def under_way(self, *command: str) -> "Iterator[Run]":
        """A command inside the lab under way, in a session of its own; SIGKILL for what is left of it at the end."""
        argv, environment = self.inside(*command)
        if (self._preloaded_place / "bin").exists():  # for one run alone, starting its server takes longer
            environment = self.preloaded(environment)
        run = Run(
            subprocess.Popen(
                argv,
                cwd=CHECKOUT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                start_new_session=True,
            )
        )
        try:
            yield run
        finally:
            run.kill()

    def provision_until(self, condition: Callable[[str], bool], limit: str = "dev") -> None:
        """Provision, and SIGKILL the whole session as soon as a line comes that `said` likes."""
        with self.provisioning(limit) as run:
            run.until(condition)

    # the hypervisor, past our client

    def api(self, path: str, method: str = "GET", **parameters: object) -> Any:
        """One call of the API by another client than ours, with our token."""
        return self._request(method, f"/api2/json{path}", parameters or None)["data"]

    def api_task(self, path: str, method: str = "POST", **parameters: object) -> None:
        """A call that answers with a task, waited for; the task has to end well."""
        upid = self.api(path, method, **parameters)

        def ended() -> Any:
            status = self.api(f"/nodes/prom/tasks/{upid}/status")
            return status if status["status"] == "stopped" else None

        status = until(ended, 20, f"{method} {path}")
        assert status["exitstatus"] == "OK", status

    def outside(self, do: str, **parameters: object) -> None:
        """Something happens on the node, past its API."""
        self._request("POST", "/_lab/outside", {"do": do, **parameters})

    def fault(self, name: str, on: bool = True, **parameters: object) -> None:
        self._request("POST", "/_lab/fault", {"name": name, "on": on, **parameters})

    def _request(self, method: str, path: str, body: dict[str, object] | None = None) -> Any:
        return control.request(self.places, Running.require(self.places), method, path, body)

    def requests(self) -> list[dict[str, Any]]:
        """Every API request so far: time, user, method, path, parameters, status."""
        return [json.loads(line) for line in self.places.api_log.read_text().splitlines()]

    def changes(self) -> list[str]:
        """Every request so far that changes something, as `METHOD path`."""
        return [f"{entry['method']} {entry['path']}" for entry in self.requests() if entry["method"] != "GET"]

    def boots(self, vmid: int = 110) -> list[str]:
        """From what a machine has booted since its VM was made: `disk`, `installer`."""
        log = self.places.lab_log.read_text().lstrip("\0")  # emptied under the lab, which writes on where it was
        return re.findall(rf"^vm {vmid}: boots from (\S+)$", log, re.MULTILINE)

    def disk_id(self, vmid: int = 110) -> str:
        """The GUID in the partition table of a VM's boot disk, read from the image behind it."""
        volume = self.api(f"/nodes/prom/qemu/{vmid}/config")["scsi0"].split(",")[0].replace(":", "/")
        seen_inside = Path(f"/proc/{Running.require(self.places).pid}/root")
        with (seen_inside / str(self.places.disks)[1:] / f"{volume}.raw").open("rb") as image:
            image.seek(512)
            header = image.read(92)
        assert header[:8] == b"EFI PART"
        return header[56:72].hex()

    def processes(self) -> list[str]:
        """What runs beside the lab's own server and machines: programs that a run started and left behind."""
        running = Running.require(self.places)
        space, found = Path(f"/proc/{running.pid}/ns/pid").readlink(), []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                if (entry / "ns/pid").readlink() == space:
                    found.append((entry / "comm").read_text().strip())
            except OSError:
                continue
        return [name for name in found if name in ("pyinfra", "nix", "ssh", "tar", "git")]


def provision_words(limit: str, *options: str) -> tuple[str, ...]:
    return ("-y", "inventory.py", "deploys/provision.py", "--limit", limit, *options)


def until(done: Callable[[], Any], seconds: float, what: str) -> Any:
    """What `done` returns once that is true; AssertionError after so many seconds."""
    end = time.monotonic() + seconds
    while not (result := done()):
        assert time.monotonic() < end, f"{what}: not within {seconds:.0f} s"
        time.sleep(0.05)
    return result


def edit(path: Path, old: str, new: str) -> None:
    """Replace a text that is there; its first place counts."""
    text = path.read_text()
    assert old in text, f"{old!r} is not in {path}"
    path.write_text(text.replace(old, new, 1))
