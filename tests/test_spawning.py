"""What is started under gevent in the short way is started as it is in the long one."""

import importlib
import os
import signal
import socket
from pathlib import Path

import gevent
import pytest
from gevent import monkey, subprocess

from nixherd.base import process as programs
from tests import spawning


@pytest.fixture(autouse=True)
def _put_right() -> None:
    spawning.put_right()


def started(*argv: str, **options: object) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(argv, capture_output=True, timeout=20, **options)


def test_status_output_and_what_it_is_given(tmp_path: Path) -> None:
    ended = started(
        "sh", "-c", 'cat; pwd; echo "$A" >&2; exit 3', input=b"in\n", cwd=tmp_path, env={"A": "b", **os.environ}
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (3, f"in\n{tmp_path}\n".encode(), b"b\n")
    assert started("sh", "-c", "kill -9 $$").returncode == -9


def test_what_cannot_be_started_says_why(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no-such-program"):
        started("no-such-program")
    with pytest.raises(PermissionError):
        started(str(tmp_path))
    with pytest.raises(FileNotFoundError, match="nowhere"):
        started("true", cwd=tmp_path / "nowhere")
    assert started("true").returncode == 0


def test_a_function_for_the_child_and_a_group_of_its_own() -> None:
    ended = started(
        "sh", "-c", "umask; cut -d' ' -f5 /proc/$$/stat; echo $$", preexec_fn=lambda: os.umask(0o27), process_group=0
    )
    mask, group, leader = ended.stdout.split()
    assert mask == b"0027"
    assert group == leader


def test_what_the_library_starts_is_led_by_itself_kept_off_the_terminal_and_limited() -> None:
    show = ["sh", "-c", "cut -d' ' -f5 /proc/$$/stat; echo $$; grep SigIgn /proc/$$/status; ulimit -d"]
    group, leader, ignored, data = programs.run(show).stdout.splitlines()
    assert group == leader
    assert int(ignored.split()[1], 16) & 1 << (signal.SIGTTIN - 1)
    assert data == "unlimited"
    assert signal.getsignal(signal.SIGTTIN) == signal.SIG_DFL
    limited = programs.run(show, limits=programs.Limits(memory=64 << 20, output=1 << 20)).stdout.splitlines()
    assert (limited[0] == limited[1], limited[3]) == (True, str(64 << 10))


def test_another_thread_starts_it_without_a_fork_too() -> None:
    start, limits = gevent.get_hub().threadpool.spawn, programs.Limits(memory=64 << 20, output=1 << 20)
    blocked = start(programs.run, ["grep", "SigBlk", "/proc/self/status"]).get().stdout
    assert int(blocked.split()[1], 16) & 1 << (signal.SIGTTIN - 1)
    assert start(programs.run, ["sh", "-c", "sleep 0.2; ulimit -d"], limits=limits).get().stdout == f"{64 << 10}\n"
    assert signal.SIGTTIN not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_no_descriptor_is_passed_on_and_what_is_given_blocks() -> None:
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    with (
        ours,
        theirs,
        subprocess.Popen(["sh", "-c", "ls /proc/$$/fd"], stdin=theirs, stdout=subprocess.PIPE) as process,
    ):
        assert process.communicate(timeout=20)[0].split() == [b"0", b"1", b"2"]
        assert os.get_blocking(theirs.fileno())


def test_others_go_on_while_one_is_waited_for() -> None:
    def echoed(number: int) -> bytes:
        output: bytes = started("sh", "-c", f"read line; echo {number}", input=b"x\n").stdout
        return output

    with gevent.Timeout(20):
        process = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        waiting = gevent.spawn(process.wait)
        jobs = [gevent.spawn(echoed, number) for number in range(8)]
        gevent.joinall(jobs)
        assert [job.value for job in jobs] == [f"{number}\n".encode() for number in range(8)]
        assert not waiting.ready()
        process.communicate()
        assert waiting.get() == 0


def test_no_worker_is_patched_by_what_it_imports() -> None:
    """A patched worker would end when it waits for its next test: nothing else runs in it then."""
    importlib.import_module("pyinfra_cli.util")
    assert not monkey.is_module_patched("threading")
