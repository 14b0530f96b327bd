"""A forked program is in everything but its start the real one, and where that cannot be it is the real one."""

import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.preloaded.programs import _servers, end, preloaded, shared

pytestmark = [pytest.mark.process, pytest.mark.xdist_group("preloaded")]

CHECKOUT = Path(__file__).parents[2]
# pyinfra on this machine, without an inventory of ours: the shell above the command is its child
_NOTE = "pid=$(cut -d' ' -f4 /proc/$PPID/stat); (tr '\\0' ' ' </proc/$pid/cmdline; cat /proc/$pid/comm) >$NOTE"
WHO = ("pyinfra", "@local", "exec", "--", _NOTE)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    place = tmp_path_factory.mktemp("programs")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("REAL_PROGRAMS", raising=False)
        found = preloaded(place, {**os.environ, "HOME": str(place), "NO_COLOR": "1", "PYINFRA_PROGRESS": "off"})
    until = time.monotonic() + 60
    while len(list(place.glob("*.standing"))) < 2:
        assert time.monotonic() < until, [log.read_text() for log in place.glob("*.log")]
        time.sleep(0.05)
    yield found
    end(place)


def run(environment: Mapping[str, str], *words: str, **options: object) -> "subprocess.CompletedProcess[str]":
    given = {"cwd": CHECKOUT, "env": environment, "stdin": subprocess.DEVNULL, "timeout": 60, **options}
    return subprocess.run(["sh", "-c", '"$@"', "sh", *words], capture_output=True, text=True, **given)  # type: ignore[call-overload, no-any-return]


def test_it_is_forked_and_called_as_the_program(environment: Mapping[str, str], tmp_path: Path) -> None:
    run({**environment, "NOTE": str(tmp_path / "note")}, *WHO)
    line, name = (tmp_path / "note").read_text().splitlines()[0].rsplit(" ", 1)
    assert "preloaded/server.py" in line
    assert name == "pyinfra"


@pytest.mark.parametrize("words", [
    ("nixherd", "--version"), ("nixherd", "nonsense"), ("nixherd", "deploy", "nobody"), ("nixherd", "plan", "--help"),
    ("pyinfra", "--version"), ("pyinfra", "inventory.py", "--limit", "nobody", "deploys/deploy.py"),
    ("pyinfra", "@local", "exec", "--", 'pwd; umask; echo "$ONLY_HERE"; exit 3'),
    ("pyinfra", "@local", "exec", "--", "kill -TERM $PPID"), ("pyinfra", "@local", "exec", "--", "kill -KILL $PPID"),
])  # fmt: skip
def test_it_says_and_ends_as_the_real_one(environment: Mapping[str, str], words: tuple[str, ...]) -> None:
    variables = {**environment, "FLEET": str(CHECKOUT / "fleet"), "ONLY_HERE": "ä  b"}
    real = {**variables, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    one, other = (run(each, *words, umask=0o27) for each in (variables, real))
    assert (one.returncode, one.stdout, one.stderr) == (other.returncode, other.stdout, other.stderr)


SAYS = "import sys; print(__name__, sys.argv, sys.path[0]); sys.exit(3)"


@pytest.mark.parametrize("program", ["pyinfra-python", "nixherd-python"])
def test_a_python_does_as_the_real_one(environment: Mapping[str, str], tmp_path: Path, program: str) -> None:
    (tmp_path / "says.py").write_text(f"{SAYS[: -len('sys.exit(3)')]} print(__file__)")
    for words in (("-c", SAYS, "a", "-b"), ("-m", "json.tool", "--nonsense"), (str(tmp_path / "says.py"), "a")):
        one, other = (run(environment, each, *words) for each in (program, sys.executable))
        assert (one.returncode, one.stdout, one.stderr) == (other.returncode, other.stdout, other.stderr)
    fails = run(environment, program, "-c", "1 / 0")
    assert (fails.returncode, fails.stderr.splitlines()[-1]) == (1, "ZeroDivisionError: division by zero")
    imported = run(environment, program, "-c", "import sys; print('nixherd.fleet.load' in sys.modules)")
    assert imported.stdout == "True\n"


@pytest.mark.parametrize("difference", ["variable", "terminal", "descriptor", "limit"])
def test_where_it_would_begin_otherwise_it_is_the_real_one(
    environment: Mapping[str, str], difference: str, tmp_path: Path
) -> None:
    variables = {**environment, "NOTE": str(tmp_path / "note")}
    options: dict[str, Any] = {}
    if difference == "variable":
        variables["PYTHONIOENCODING"] = "utf-8"
    elif difference == "terminal":
        options["stdin"] = pty.openpty()[1]
    elif difference == "descriptor":
        options["pass_fds"] = [os.open(os.devnull, os.O_RDONLY)]
    words = WHO if difference != "limit" else ("sh", "-c", 'ulimit -n 512; "$@"', "sh", *WHO)
    run(variables, *words, **options)
    assert f"{Path(sys.executable).parent}/pyinfra" in (tmp_path / "note").read_text()


def _sleeping(environment: Mapping[str, str], tmp_path: Path) -> tuple["subprocess.Popen[str]", int]:
    """A program that waits for a child of its own, and that child's PID."""
    note = tmp_path / "pid"
    words = ("pyinfra", "@local", "exec", "--", f"echo $$ >{note}; exec sleep 60")
    process = subprocess.Popen(
        words, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    while not note.exists() or not note.read_text():
        assert process.poll() is None
        time.sleep(0.02)
    return process, int(note.read_text())


def _is_gone(pid: int) -> bool:
    until = time.monotonic() + 20
    while Path(f"/proc/{pid}").exists() and time.monotonic() < until:
        time.sleep(0.02)
    return not Path(f"/proc/{pid}").exists()


def test_none_where_real_ones_are_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("REAL_PROGRAMS", "1")
    assert (preloaded(tmp_path, {"PATH": "/bin"}), [*tmp_path.iterdir()]) == ({"PATH": "/bin"}, [])


def test_a_signal_reaches_it(environment: Mapping[str, str], tmp_path: Path) -> None:
    process, child = _sleeping(environment, tmp_path)
    process.terminate()
    assert process.wait(20) == -signal.SIGTERM
    with suppress(ProcessLookupError):  # the signal reached it as well
        os.kill(child, signal.SIGKILL)
    process.communicate()


def test_it_ends_with_whoever_asked_for_it(environment: Mapping[str, str], tmp_path: Path) -> None:
    process, child = _sleeping(environment, tmp_path)
    process.kill()
    assert _is_gone(child)
    process.communicate()


def test_what_workers_share_ends_with_the_last_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REAL_PROGRAMS", raising=False)
    monkeypatch.setenv("PYTEST_XDIST_WORKER", "gw0")
    with shared(tmp_path / "gw0", "programs") as place:
        with shared(tmp_path / "gw1", "programs") as same:
            assert same == place
            preloaded(place, os.environ)
            preloaded(same, os.environ)
        servers = _servers[place]
        until = time.monotonic() + 60
        while len(list(place.glob("*.standing"))) < len(servers):
            assert time.monotonic() < until
            time.sleep(0.05)
        time.sleep(1)
        assert [server.poll() for server in servers] == [None, None]
    assert [server.wait(20) for server in servers] == [0, 0]
