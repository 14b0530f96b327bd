"""`pyinfra` and `nixherd` for tests' runs: forked by servers that have imported them (server.py)."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from fcntl import LOCK_EX, LOCK_SH, flock
from pathlib import Path

from tests.preloaded.client import PYTHON, USERS

Programs = Callable[[dict[str, str]], dict[str, str]]
"""Makes an environment into one with the programs on PATH (the fixture `programs`)."""

_HERE = Path(__file__).parent
_OURS = Path(sys.executable).parent
_PROGRAMS = ("pyinfra", "nixherd")
_servers: dict[Path, list["subprocess.Popen[bytes]"]] = {}


def preloaded(
    place: Path,
    environment: Mapping[str, str],
    inside: Callable[[list[str]], list[str]] = list,
    *,
    changed_by: str = "",
) -> dict[str, str]:
    """This environment with the two programs on PATH, where our Python is, or before all where it is not.

    `place` is made, and the servers started, with its first call; `inside` makes an argv into one that runs where the
    programs will. Until the servers are ready, and wherever else it would make a difference (client.py), the real
    programs run. `changed_by` is a module that changes what is imported (server.py). The servers end with what `inside`
    enters, with the last worker that has the place by `shared`, else with `end`. With REAL_PROGRAMS in our own
    environment there are none.
    """
    if os.environ.get("REAL_PROGRAMS"):
        return dict(environment)
    bin = place / "bin"
    with place.with_suffix(".lock").open("w") as lock:
        flock(lock, LOCK_EX)
        if not bin.exists():
            _make(place)
            _servers[place] = [_started(place, program, environment, inside, changed_by) for program in _PROGRAMS]
    path = environment.get("PATH", os.defpath).split(":")
    at = path.index(str(_OURS)) if str(_OURS) in path else 0
    return {**environment, "PATH": ":".join([*path[:at], str(bin), *path[at:]])}


@contextmanager
def shared(base: Path, name: str) -> Iterator[Path]:
    """A place that all workers of a run have together, for as long as one of them has it."""
    place = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    with place.with_suffix(USERS).open("w") as users:
        flock(users, LOCK_SH)
        yield place


def end(place: Path) -> None:
    """End the servers of this place; what they forked is not asked."""
    for server in _servers.pop(place, ()):
        server.kill()
        server.wait()


def _make(place: Path) -> None:
    """Lay out a Python's environment like ours, but for the two programs."""
    bin = place / "bin"
    bin.mkdir(parents=True)
    python = Path(sys.executable).resolve()
    (bin / "python").symlink_to(python)
    shutil.copy(_OURS.parent / "pyvenv.cfg", place)
    for name in ("lib", "lib64"):
        if (_OURS.parent / name).exists():
            (place / name).symlink_to(_OURS.parent / name)
    text = (_HERE / "client.py").read_text()
    for program in _PROGRAMS:
        for name, real in ((program, _OURS / program), (f"{program}{PYTHON}", Path(sys.executable))):
            (place / f"{name}.real").symlink_to(real)
            (bin / name).write_text(f"#!{python} -IS\n{text}")
            (bin / name).chmod(0o755)


def _started(
    place: Path, program: str, environment: Mapping[str, str], inside: Callable[[list[str]], list[str]], changed_by: str
) -> "subprocess.Popen[bytes]":
    argv = inside([sys.executable, "-P", str(_HERE / "server.py"), str(place), program, *filter(None, [changed_by])])
    with (place / f"{program}.log").open("w") as log:
        return subprocess.Popen(
            argv, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
