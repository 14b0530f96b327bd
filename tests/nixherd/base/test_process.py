import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from nixherd.base.errors import DeadlineExceeded, ProcessFailed
from nixherd.base.process import Carrier, Completed, run


def _gone(pid: int) -> bool:
    """Whether a process ended (a zombie that nobody reaps has ended too)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def _wait_gone(pid: int) -> bool:
    deadline = time.monotonic() + 5
    while not _gone(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return _gone(pid)


def test_returns_output_and_status() -> None:
    done = run(["sh", "-c", "echo out; echo err >&2"])
    assert done == Completed("out\n", "err\n", 0)


def test_failure_shows_command_status_and_last_words_on_one_line() -> None:
    with pytest.raises(ProcessFailed) as caught:
        run(["sh", "-c", "echo first >&2; echo 'the reason' >&2; echo >&2; exit 3"])
    assert caught.value.status == 3
    assert "the reason" in caught.value.stderr
    assert str(caught.value).startswith("sh -c ")
    assert str(caught.value).endswith(": status 3: the reason")
    assert "\n" not in str(caught.value)


def test_without_check_a_failure_is_a_result() -> None:
    assert run(["sh", "-c", "exit 4"], check=False).status == 4


def test_a_signal_is_named() -> None:
    with pytest.raises(ProcessFailed, match=r"killed by SIGKILL$"):
        run(["sh", "-c", "kill -9 $$"])


def test_missing_program_and_directory_are_one_clear_line() -> None:
    with pytest.raises(ProcessFailed, match=r"^no-such: no such program on PATH; install it, or put it on PATH$"):
        run(["no-such", "--version"])
    with pytest.raises(ProcessFailed, match=r"^true: cannot be run in /no/such: no such directory$"):
        run(["true"], cwd="/no/such")
    with pytest.raises(ProcessFailed, match=r"^/etc/passwd: cannot be started: Permission denied$"):
        run(["/etc/passwd"])


def test_input_reaches_stdin_and_nothing_else(tmp_path: Path) -> None:
    with pytest.raises(ProcessFailed) as caught:
        run(["sh", "-c", 'cat > kept; tr "\\0" " " < /proc/$$/cmdline >> seen; env >> seen; exit 1'],
            cwd=tmp_path, input="s3cret-word")  # fmt: skip
    assert (tmp_path / "kept").read_text() == "s3cret-word"
    assert "s3cret-word" not in (tmp_path / "seen").read_text()
    assert "s3cret-word" not in str(caught.value) + caught.value.stderr + repr(caught.value.__dict__)


def test_input_that_is_not_read_is_no_error() -> None:
    assert run(["true"], input=b"x" * (1 << 20)).status == 0


def test_stdin_is_empty_without_input() -> None:
    assert run(["cat"]).stdout == ""


@pytest.mark.process
def test_large_output_on_both_pipes_does_not_block() -> None:
    script = "import sys; [(print('o' * 99), print('e' * 99, file=sys.stderr)) for _ in range(20000)]"
    done = run([sys.executable, "-c", script], timeout=60)
    assert (len(done.stdout), len(done.stderr)) == (2_000_000, 2_000_000)


def test_env_is_added_to_ours() -> None:
    done = run(["sh", "-c", "echo $ADDED; echo $PATH"], env={"ADDED": "yes"})
    assert done.stdout.splitlines() == ["yes", os.environ["PATH"]]


def test_stream_gets_lines_as_they_come() -> None:
    seen: list[tuple[str, float]] = []
    run(
        ["sh", "-c", "echo one >&2; sleep 0.5; printf 'two\\nlast' >&2"],
        stream=lambda line: seen.append((line, time.monotonic())),
    )
    assert [line for line, _ in seen] == ["one", "two", "last"]
    assert seen[1][1] - seen[0][1] > 0.3


def test_deadline_ends_the_whole_group(tmp_path: Path) -> None:
    began = time.monotonic()
    with pytest.raises(DeadlineExceeded, match=r"not done after 0\.5 s, so it was stopped: working$"):
        run(["sh", "-c", "sleep 60 & echo $! > child; echo working >&2; wait"], cwd=tmp_path, timeout=0.5)
    assert time.monotonic() - began < 30
    assert _wait_gone(int((tmp_path / "child").read_text()))


def test_deadline_ends_a_program_that_ignores_sigterm(tmp_path: Path) -> None:
    with pytest.raises(DeadlineExceeded):
        run(["sh", "-c", "trap '' TERM; echo $$ > pid; while :; do sleep 0.1; done"], cwd=tmp_path, timeout=0.3)
    assert _wait_gone(int((tmp_path / "pid").read_text()))


def test_a_child_left_behind_does_not_hold_the_result_up(tmp_path: Path) -> None:
    began = time.monotonic()
    done = run(["sh", "-c", "setsid sleep 60 & echo $! > child; echo done"], cwd=tmp_path)
    child = int((tmp_path / "child").read_text())
    os.kill(child, signal.SIGKILL)
    assert done.stdout == "done\n"
    assert time.monotonic() - began < 30


CHILD = "run(['sh', '-c', 'echo $$ > {tmp}/pid.new; mv {tmp}/pid.new {tmp}/pid; exec sleep 60'])"
GEVENT = "from gevent import monkey; monkey.patch_all()\nimport gevent\n"


def _child_of(script: str, tmp_path: Path, end: Callable[["subprocess.Popen[bytes]"], None]) -> int:
    """The PID of what a program that runs this script has started, after the program was ended."""
    words = (
        # a job in the background of a script, as these tests may be, starts with SIGINT ignored
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from nixherd.base.process import run, end_all, interrupt_all\n" + script.replace("{tmp}", str(tmp_path))
    )
    with subprocess.Popen([sys.executable, "-c", words], stderr=subprocess.DEVNULL, start_new_session=True) as ours:
        deadline = time.monotonic() + 20
        while not (tmp_path / "pid").exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        until = time.monotonic() + 10
        while ours.poll() is None and time.monotonic() < until:
            end(ours)  # again, as a person would: Python may miss a signal that comes just as it begins to wait
            with suppress(subprocess.TimeoutExpired):
                ours.wait(1)
        assert ours.returncode is not None
    return int((tmp_path / "pid").read_text())


@pytest.mark.process
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize(
    "script",
    [
        CHILD,
        f"import threading; threading.Thread(target=lambda: {CHILD}).start()",
        f"{GEVENT}gevent.spawn(lambda: {CHILD}).join()",
    ],
    ids=["main", "thread", "greenlet"],
)
def test_whatever_ends_us_leaves_nothing_behind(script: str, number: int, tmp_path: Path) -> None:
    if "Thread" in script and number == signal.SIGINT:
        # only the main thread is interrupted, and Python waits for the others
        script = f"import signal; signal.signal(signal.SIGINT, lambda *_: interrupt_all())\n{script}"
    assert _wait_gone(_child_of(script, tmp_path, lambda ours: ours.send_signal(number)))


@pytest.mark.process
def test_a_program_is_in_our_session_and_in_a_group_of_its_own() -> None:
    shown = run([sys.executable, "-c", "import os; print(os.getsid(0), os.getpgid(0) == os.getpid())"]).stdout
    assert shown == f"{os.getsid(0)} True\n"


def test_a_thread_that_ends_takes_only_its_own_programs_along() -> None:
    """The kernel takes the end of the thread that started a program for the end of us all."""
    with ThreadPoolExecutor(1) as short, ThreadPoolExecutor(1) as long:
        goes_on = long.submit(run, ["sh", "-c", "sleep 1; echo whole"])
        short.submit(run, ["true"]).result()
        short.shutdown()
        assert goes_on.result().stdout == "whole\n"


# It runs already, and whoever starts it has not heard so.
SLOW = """
import subprocess, time
class Slow(subprocess.Popen):
    def __init__(self, *words, **options):
        super().__init__(*words, **options)
        time.sleep(0.5)
subprocess.Popen = Slow
"""


@pytest.mark.process
@pytest.mark.parametrize("trap", ["", "trap '' TERM;"])
@pytest.mark.parametrize(
    "patch", ["", GEVENT, SLOW, GEVENT + SLOW], ids=["thread", "greenlet", "slow-thread", "slow-greenlet"]
)
def test_the_end_of_a_run_ends_what_goes_on_in_the_background(patch: str, trap: str, tmp_path: Path) -> None:
    """A build made ahead by a run that has failed since: also what it started itself, and what would follow."""
    script = f"""{patch}
import threading, time, pathlib
def work():
    try:
        run(["sh", "-c", "{trap} sleep 60 & echo $! > {{tmp}}/pid.new; mv {{tmp}}/pid.new {{tmp}}/pid; wait"])
    except Exception:
        run(["touch", "{{tmp}}/next"])
threading.Thread(target=work, daemon=True).start()
while not pathlib.Path("{{tmp}}/pid").exists(): time.sleep(0.02)
end_all()
time.sleep(0.5)
"""
    pid = _child_of(script, tmp_path, lambda ours: None)
    assert _wait_gone(pid)
    assert not (tmp_path / "next").exists()


def test_nobody_waits_at_a_terminal(tmp_path: Path) -> None:
    """A program of a background group that reads from the terminal would be stopped, and we would wait for ever."""
    script = """
import os, sys
sys.path.insert(0, os.getcwd())
from nixherd.base.process import run
print("read:", run(["sh", "-c", "read line </dev/tty; echo $?"], timeout=5, check=False).stdout)
"""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [sys.executable, "-c", script])
    said = b""
    with suppress(OSError):  # the terminal is gone with its last user
        while part := os.read(terminal, 1000):
            said += part
    os.waitpid(pid, 0)
    os.close(terminal)
    assert b"read: 1" in said, said.decode()


@pytest.mark.process
def test_under_gevent_others_go_on_meanwhile() -> None:
    script = """
from gevent import monkey; monkey.patch_all()
import gevent, time
from nixherd.base.errors import DeadlineExceeded
from nixherd.base.process import run
began = time.monotonic()
def failing():
    try:
        run(["sleep", "30"], timeout=0.5)
    except DeadlineExceeded as error:
        return str(error)
lines = []
jobs = [gevent.spawn(run, ["sh", "-c", "sleep 1; cat"], input="x" * 300000) for _ in range(8)]
jobs += [gevent.spawn(failing), gevent.spawn(run, ["sh", "-c", "echo a >&2; sleep 1; echo b >&2"], stream=lines.append)]
gevent.joinall(jobs, raise_error=True)
assert all(len(job.value.stdout) == 300000 for job in jobs[:8])
assert jobs[8].value == "sleep 30: not done after 0.5 s, so it was stopped", jobs[8].value
assert lines == ["a", "b"]
print(time.monotonic() - began)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 4.5  # one after the other they would take 9.5 s


def test_a_carrier_ends_with_its_connection(tmp_path: Path) -> None:
    """Also one that does not mind its standard input's end; what it said last is known."""
    script = f"echo $$ >{tmp_path}/pid; echo one >&2; echo two >&2; cat; exec sleep 60"
    carrier = Carrier(["sh", "-c", script])
    carrier.socket.sendall(b"there and back")
    assert carrier.socket.recv(64) == b"there and back"
    pid = int((tmp_path / "pid").read_text())
    carrier.end()
    assert _wait_gone(pid)
    assert carrier.last_words == "two"
    with pytest.raises(ProcessFailed, match="no such program on PATH"):
        Carrier(["no-such-program"])


def test_what_watches_a_program_may_end_it(tmp_path: Path) -> None:
    seen: list[int] = []

    def watch(pid: int) -> None:
        seen.append(pid)
        if len(seen) == 3:
            raise DeadlineExceeded("it does not get on")

    with pytest.raises(DeadlineExceeded, match="it does not get on"):
        run(["sh", "-c", "exec sleep 60"], watch=watch)
    assert len(set(seen)) == 1
    assert _wait_gone(seen[0])
