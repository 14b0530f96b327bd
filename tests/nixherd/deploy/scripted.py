"""Machines for the engine's tests: one runs the real machine.sh in a directory of its own, one answers by script.

The sandbox is a machine without systemd: its store, profile and /run are below a directory, and its systems are
programs that say what they did. Neither needs root, Nix, SSH or a lab.
"""

import io
import os
import re
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from nixherd.base.becoming_root import Become
from nixherd.base.process import Completed
from nixherd.deploy.machine import ANSWER_DEADLINE, COMMAND_DEADLINE
from nixherd.deploy.options import Options
from nixherd.deploy.rollout import HostRun, Rollout
from nixherd.deploy.running import Running
from nixherd.fleet.models import Access
from nixherd.ssh.destination import Destination
from tests.nixherd.proxmox.fleets import FLEET, HOST
from tests.runs import DESCRIBED
from tests.shared import Shared

OLD, NEW, THIRD = (f"/nix/store/{letter * 32}-nixos-system-dev" for letter in "abc")
REVISION = "4f2c" * 10
BEFORE = Running(OLD, OLD, "dev", "1", revision="old")
CONFIG = replace(DESCRIBED, toplevel=NEW, toplevel_drv=f"{NEW}.drv", revision=REVISION)
FAILED = Completed("", "sorry\nit is broken\n", 1)
SHARED = Shared(replace(FLEET, hosts={"dev": replace(HOST, id="dev"), "far": replace(HOST, id="far")}), Path("token"))
FAKE = "#!/bin/sh\n"
_PATHS = re.compile(r"(?<![\w}-])/(nix|run|var/lib)/")  # the machine's own, at their beginning


@dataclass
class Notes:
    """A journal in memory."""

    entries: list[tuple[str, str | None, dict[str, Any]]] = field(default_factory=list)

    def note(self, event: str, host: str | None = None, **values: Any) -> None:
        self.entries.append((event, host, values))

    @property
    def found(self) -> dict[str, Any]:
        """All that was noted of the host."""
        return {name: value for event, _, values in self.entries if event == "found" for name, value in values.items()}

    @property
    def stages(self) -> list[str]:
        return [values["stage"] for event, _, values in self.entries if event == "stage"]

    @property
    def end(self) -> tuple[str, str | None]:
        [(_, _, values)] = [entry for entry in self.entries if entry[0] == "end"]
        return str(values["outcome"]), values["why"]


@dataclass(frozen=True)
class Command:
    """What a machine was told to run, and how."""

    script: str
    stdin: str | None
    sudo: bool
    deadline: float


@dataclass
class Base:
    """What every machine of the tests has."""

    id: str = "dev"
    access: Access = Access.SHELL
    is_local: bool = False
    user: str = "root"
    become: Become = Become.SUDO
    boot_deadline: float = 2.0
    password: str | None = None
    has_password: bool = False
    narration: list[str] = field(default_factory=list)
    commands: list[Command] = field(default_factory=list)
    connections: int = 0
    unreachable: list[Exception | None] = field(default_factory=list)
    """what the next tries to connect come to; None for those that do"""
    services: Mapping[tuple[str, int], bytes] = field(default_factory=dict)

    def reconnect(self, deadline: float | None = None, *, if_lost: bool = False, absent_ok: bool = False) -> str:
        if self.unreachable and (error := self.unreachable.pop(0)):
            raise error
        self.connections += 0 if if_lost else 1
        return "192.0.2.1"

    def copy_to(self) -> Destination:
        return Destination("192.0.2.1", self.user, Path("/dev/null"))

    @contextmanager
    def tunnel(self, address: tuple[str, int], timeout: float) -> Iterator[Any]:
        if address not in self.services:
            raise OSError(f"no connection to {address[0]}:{address[1]}")
        yield Service(self.services[address])

    def breaks(self, protocol: str) -> str | None:
        return None

    def give_password(self) -> bool:
        self.password = "secret" if self.has_password else self.password
        return self.has_password

    def say(self, text: str) -> None:
        self.narration.append(text)

    @property
    def scripts(self) -> list[str]:
        return [each.script for each in self.commands]

    def with_word(self, word: str) -> list[Command]:
        """The commands that hold a word. AssertionError where none does."""
        found = [each for each in self.commands if word in each.script]
        assert found, f"no command holds {word!r}: {self.scripts}"
        return found

    def are_roots(self, word: str) -> bool:
        """Whether the commands that hold a word run as root: all do, or none."""
        [sudo] = {each.sudo for each in self.with_word(word)}
        return sudo


@dataclass
class Service:
    """A connection on which something answers."""

    answer: bytes

    def sendall(self, data: bytes) -> None:
        """Take the request."""

    def makefile(self, mode: str) -> Any:
        return io.BytesIO(self.answer)


Answer = Callable[[str], Completed] | Completed | Exception | str


@dataclass
class Scripted(Base):
    """Answers the first script that holds a word of `answers` with what stands there; anything else with nothing."""

    answers: dict[str, Any] = field(default_factory=dict)

    def run(
        self, script: str, *, stdin: str | None = None, sudo: bool = False, deadline: float = COMMAND_DEADLINE
    ) -> Completed:
        self.commands.append(Command(script, stdin, sudo, deadline))
        for word, answer in self.answers.items():
            if word in script:
                answer = answer.pop(0) if isinstance(answer, list) and len(answer) > 1 else answer
                answer = answer[0] if isinstance(answer, list) else answer
                if isinstance(answer, Exception):
                    raise answer
                return Completed(answer, "", 0) if isinstance(answer, str) else answer
        return Completed("", "", 0)

    def run_forced(self, words: str, *, deadline: float = ANSWER_DEADLINE) -> Completed:
        return self.run(words, deadline=deadline)


@dataclass
class Sandbox(Base):
    """Runs every script, with the machine's own paths below `root`."""

    root: Path = Path()
    broken: list[Exception] = field(default_factory=list)
    """what the next commands come to instead"""

    def __post_init__(self) -> None:
        for directory in ("run/nixherd", "run/nixos", "nix/store", "nix/var/nix/profiles", "var/lib"):
            (self.root / directory).mkdir(parents=True)
        self.system(OLD)
        self._link("nix/var/nix/profiles/system-1-link", OLD)
        (self.root / "nix/var/nix/profiles/system").symlink_to("system-1-link")
        self._link("run/current-system", OLD)
        self._link("run/booted-system", OLD)

    def system(self, path: str, *, activate: str = "", boot: str = "") -> str:
        """Make a system in its store; `activate` and `boot` are what its programs do beside being one."""
        bin_ = self._path(path) / "bin"
        bin_.mkdir(parents=True)
        run, tools = self.root / "run", self._path(path) / "sw/bin"
        tools.mkdir(parents=True)
        program = f"{FAKE}case $1 in test) {activate or ':'}\nln -sfn {self._path(path)} {run}/current-system ;; "
        self._program(bin_ / "switch-to-configuration", f"{program} boot) {boot or ':'} ;; esac\n")
        profile = self.root / "nix/var/nix/profiles/system"
        self._program(tools / "nix-store", f"{FAKE}exit 0\n")
        self._program(tools / "mount", f"{FAKE}exit 1\n")
        set_profile = (
            f"{FAKE}case $3 in --set) n=$(ls -d {profile}-*-link | wc -l); n=$((n + 1)); "
            f'ln -sfn "$4" {profile}-$n-link; '
            f"ln -sfn system-$n-link {profile} ;; --switch-generation) ln -sfn system-$4-link {profile} ;; "
            f"--delete-generations) rm -f {profile}-$4-link ;; esac\n"
        )
        self._program(tools / "nix-env", set_profile)
        return path

    def _program(self, path: Path, text: str) -> None:
        path.write_text(text)
        path.chmod(0o755)

    def _link(self, name: str, system: str) -> None:
        (self.root / name).symlink_to(self._path(system))

    def _path(self, path: str) -> Path:
        return self.root / path.lstrip("/")

    @property
    def current(self) -> str:
        return "/" + str((self.root / "run/current-system").resolve().relative_to(self.root))

    @property
    def profile(self) -> str:
        return "/" + str((self.root / "nix/var/nix/profiles/system").resolve().relative_to(self.root))

    def run(
        self, script: str, *, stdin: str | None = None, sudo: bool = False, deadline: float = COMMAND_DEADLINE
    ) -> Completed:
        self.commands.append(Command(script, stdin, sudo, deadline))
        if self.broken:
            raise self.broken.pop(0)
        done = subprocess.run(
            ["sh", "-c", self._moved(script)],
            input=self._moved(stdin or ""),
            capture_output=True,
            text=True,
            timeout=30,
            env={"PATH": os.environ["PATH"], "HOME": str(self.root)},
        )
        return Completed(self._back(done.stdout), self._back(done.stderr), done.returncode)

    def run_forced(self, words: str, *, deadline: float = ANSWER_DEADLINE) -> Completed:
        raise AssertionError("it has a shell")

    def reap(self) -> None:
        """Forget what has run: in a container nobody may reap it, and then its number lives."""
        for file in self.root.rglob("*.pid"):
            file.unlink()

    def _moved(self, text: str) -> str:
        return _PATHS.sub(lambda match: f"{self.root}{match[0]}", text)

    def _back(self, text: str) -> str:
        return text.replace(str(self.root), "")


def rolled_out(machine: Any, **options: Any) -> tuple[Rollout, HostRun, Notes]:
    """A rollout of the one host whose machine this is."""
    notes = Notes()
    usual = {"activation_deadline": 5, "confirm_deadline": 8, **options}
    host = replace(HOST, id=machine.id, hostname=machine.id)
    host_run = HostRun(host, Options(**usual), machine, notes, "/fleet", lambda: None)
    return Rollout("20261130T050000-1", notes, (machine.id,), {machine.id: host_run}), host_run, notes


def system(current: str = OLD, **values: str) -> str:
    """What a machine answers to `system_script`."""
    usual = {"current": current, "profile": current, "hostname": "dev", "boot_id": "1", "sudo": "root", **values}
    return "".join(f"{name}={value}\n" for name, value in usual.items())


ANSWER = "protocol=3\nid=20261130T050000-1\nwho=me\nhostname=dev\ncurrent={}\nprofile={}\nold=" + OLD + "\n"


def answers(*states: str, current: str = NEW, profile: str = NEW, more: str = "") -> list[str]:
    """What a machine answers to looks at a deployment, one after the other."""
    return [f"{ANSWER.format(current, profile)}state={state}\n{more}" for state in states]
