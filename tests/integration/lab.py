"""Drives a lab of the tests' own through its commands, as a script of a user would."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
RUN_DEADLINE = 240.0  # seconds for one pyinfra run


@dataclass(frozen=True)
class Ended:
    """How a command ended; stdout and stderr together, in the order they came."""

    status: int
    output: str


@dataclass(frozen=True)
class Lab:
    """A lab whose state lives in `state`, beside and not in the one of `make lab up`."""

    state: Path

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "FLEETWRIGHT_LAB": str(self.state), "NO_COLOR": "1", "PYINFRA_PROGRESS": "off"}

    def argv(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "lab", *words]

    def __call__(self, *words: str, check: bool = True, timeout: float = RUN_DEADLINE) -> Ended:
        """`python -m lab WORDS`; AssertionError with its output when it fails, unless `check` is False."""
        done = subprocess.run(
            self.argv(*words),
            cwd=CHECKOUT,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
        )
        assert not check or done.returncode == 0, f"{words} ended with {done.returncode}:\n{done.stdout}"
        return Ended(done.returncode, done.stdout)

    def run(self, *command: str, check: bool = True, env: Mapping[str, str] | None = None) -> Ended:
        """Run a command inside the lab."""
        prefix = ["env", *(f"{key}={value}" for key, value in env.items())] if env else []
        return self("run", "--", *prefix, *command, check=check)

    def pyinfra(self, *words: str, check: bool = True, env: Mapping[str, str] | None = None) -> Ended:
        return self.run("pyinfra", *words, check=check, env=env)

    def provision(self, limit: str = "dev", *options: str, check: bool = True) -> Ended:
        return self.pyinfra("-y", "inventory.py", "deploys/provision.py", "--limit", limit, *options, check=check)

    def killed_when(self, said: Callable[[str], bool], *words: str) -> bool:
        """Start a pyinfra run, and SIGKILL all of its session as soon as it prints a line that `said` likes.

        False when it ended before.
        """
        process = subprocess.Popen(
            self.argv("run", "--", "pyinfra", *words),
            cwd=CHECKOUT,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                if said(line):
                    _kill_session(process.pid)
                    process.wait(10)
                    return True
        process.wait(10)
        return False

    def requests(self) -> list[dict[str, object]]:
        """Every API request so far: time, user, method, path, parameters, status."""
        log = self.state / "api.jsonl"
        return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []

    def changes(self) -> list[dict[str, object]]:
        return [request for request in self.requests() if request["method"] != "GET"]

    def fault(self, name: str, on: bool = True, **parameters: object) -> None:
        self("fault", name, "on" if on else "off", *(f"{key}={value}" for key, value in parameters.items()))


def _kill_session(leader: int) -> None:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if os.getsid(int(entry.name)) == leader:
                    os.kill(int(entry.name), signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                continue
