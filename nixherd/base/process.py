"""The one local subprocess: every `nix`, `ssh`, `sops` and `git` that we start is started by `run`.

Under pyinfra's command line gevent has replaced `subprocess` and `threading`, so waiting here lets the other
hosts go on; as a plain library it uses real threads. Nothing else here depends on which of the two it is.

Nothing that was started here outlives us. A program is in our session, in a process group of its own: whoever
kills our session reaches it, a Ctrl-C does not. `interrupt_all` and `end_all` are for the end of a run; if we
are gone without a word (SIGKILL, out of memory) the kernel kills the program (PR_SET_PDEATHSIG, prctl(2)).
"""

import contextlib
import ctypes
import functools
import math
import os
import resource
import shlex
import signal
import socket
import subprocess
import textwrap
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from nixherd.base.errors import FAILURES, DeadlineExceeded, ProcessFailed
from nixherd.base.reasons import reason

# How long the output of an ended program is waited for: a program may leave a child behind (OpenSSH's
# connection master does) that keeps the pipe open for as long as it lives.
_DRAIN = 1.0
# How often a program whose output goes on is looked at, how long it may take to start, and to stop when told to.
_POLL, _START, _GRACE = 0.1, 10.0, 1.0

# linux/prctl.h; elsewhere the kernel has no such call
_PR_SET_PDEATHSIG = 1
_prctl = getattr(ctypes.CDLL(None), "prctl", None)

# The process groups that run now, by their leader's PID, and whether the end has come: then none is started.
_groups: set[int] = set()
_ended = threading.Event()
_starting: set[object] = set()  # what has no group yet that we know of: under gevent others go on meanwhile

_LINE = 1 << 20  # bytes of a line that are taken in at once
_SHOWN = 120  # characters of a command line that an error message shows


@dataclass(frozen=True, slots=True)
class Completed:
    """What an ended program left: decoded output, and the exit status (negative: the signal that ended it)."""

    stdout: str
    stderr: str
    status: int
    raw: bytes = field(default=b"", repr=False, compare=False)
    """stdout as it was written"""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a program may take, in bytes: `memory` of its own (Linux), `output` on stdout and stderr each."""

    memory: int
    output: int


def run(
    argv: Sequence[str | os.PathLike[str]],
    *,
    cwd: str | os.PathLike[str] | None = None,
    env: Mapping[str, str] | None = None,
    closed: bool = False,
    input: str | bytes | None = None,
    timeout: float | None = None,
    check: bool = True,
    stream: Callable[[str], None] | None = None,
    out: Callable[[str], None] | None = None,
    limits: Limits | None = None,
    watch: Callable[[int], None] | None = None,
) -> Completed:
    """Run a program to its end and return what it wrote.

    `env` is added to our own environment, or is all of it where that is `closed`. `input` is written to stdin and goes
    nowhere else, whatever fails; without it stdin is empty. `timeout` is in seconds. `stream` is given each line of
    stderr as it comes, without its newline, and `out` each of stdout. `limits` are for programs that do what somebody
    else wrote. `watch` is called again and again with the program's PID; what it raises ends the program.

    The program gets a process group of its own, which is killed when the deadline passes and when we are
    interrupted, so nothing goes on behind our back. It has no terminal to ask at.

    Raises ProcessFailed when the program cannot be started, when it writes too much or, with `check`, when its status
    is not 0; DeadlineExceeded when it has not ended in time.
    """
    words = [os.fspath(word) for word in argv]
    data = _encoded(words[0], input)
    process = _start(words, cwd, dict(env or {}) if closed else {**os.environ, **(env or {})}, limits)
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    deadline = math.inf if timeout is None else time.monotonic() + timeout
    most = limits.output if limits else math.inf
    stdout, stderr = _Reader(process.stdout, out, most), _Reader(process.stderr, stream, most)
    try:
        _in_background(_write, process.stdin, data)
        readers = (_in_background(stdout.read), _in_background(stderr.read))
        ended = _wait(process, readers, deadline, lambda: stdout.is_over or stderr.is_over, watch)
    finally:
        if process.returncode is None:
            _kill_group(process)
        _groups.discard(process.pid)
    if stdout.is_over or stderr.is_over:
        message = f"{_shown(words)}: wrote more than {int(most) >> 20} MiB, so it was stopped"
        raise ProcessFailed(message, -signal.SIGKILL)
    if not ended:
        words_left = _last_words(stderr.text())
        raise DeadlineExceeded(f"{_shown(words)}: not done after {timeout:g} s, so it was stopped{words_left}")
    completed = Completed(stdout.text(), stderr.text(), process.returncode, stdout.whole())
    if check and completed.status != 0:
        why = reason(completed.stderr, "")
        message = f"{_shown(words)}: {_ending(completed.status)}{f': {why}' if why else ''}"
        raise ProcessFailed(message, completed.status, completed.stderr)
    return completed


def attended(
    argv: Sequence[str],
    *,
    cwd: str | os.PathLike[str],
    env: Mapping[str, str],
    stream: Callable[[str], None],
) -> Completed:
    """Run a program that asks the person at our terminal, and return what it wrote.

    `env` is all of its environment. It has our terminal and stdin, and our process group; each line of stderr goes to
    `stream` as it comes. ProcessFailed when it cannot be started.
    """
    try:
        process = subprocess.Popen(
            list(argv),
            cwd=cwd,
            env=dict(env),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            preexec_fn=functools.partial(_die_with, os.getpid()),
        )
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        status = 127 if isinstance(error, FileNotFoundError) else 126
        raise ProcessFailed(f"{argv[0]}: cannot be started: {why}", status) from error
    assert process.stdout is not None
    assert process.stderr is not None
    stdout, stderr = _Reader(process.stdout), _Reader(process.stderr, stream)
    readers = [_in_background(stdout.read), _in_background(stderr.read)]
    try:
        process.wait()
    finally:
        if process.returncode is None:
            process.terminate()
            process.wait(_GRACE)
    for reader in readers:
        reader.join(_DRAIN)
    return Completed(stdout.text(), stderr.text(), process.returncode, stdout.whole())


def foreground(argv: Sequence[str], env: Mapping[str, str]) -> int:
    """Run a program that talks to the person at our terminal; its status. ProcessFailed when it cannot be started."""
    try:
        return subprocess.call(argv, env={**os.environ, **env})
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise ProcessFailed(f"{argv[0]}: cannot be started: {why}", 126) from error


def _encoded(name: str, input: str | bytes | None) -> bytes:
    if not isinstance(input, str):
        return input or b""
    try:
        return input.encode()
    except UnicodeEncodeError:  # which would quote what nobody is to see
        raise ProcessFailed(f"{name}: not started: what it is to read holds half a character", 126) from None


class Carrier:
    """A program whose standard input and output carry a connection; `socket` is our end of it."""

    def __init__(self, argv: Sequence[str]) -> None:
        """ProcessFailed when it cannot be started. It ends with the thread that started it."""
        self.socket, theirs = socket.socketpair()
        os.set_blocking(theirs.fileno(), True)  # gevent's are not
        try:
            self._process = _start(list(argv), None, os.environ, through=theirs)
        except BaseException:
            self.socket.close()
            raise
        finally:
            theirs.close()
        assert self._process.stderr is not None
        self._stderr = _Reader(self._process.stderr)
        self._reading = _in_background(self._stderr.read)

    @property
    def last_words(self) -> str:
        """Why it failed, as it says on stderr, once it has ended or not; empty when nothing."""
        if self._process.poll() is not None:
            self._reading.join(_DRAIN)
        return reason(self._stderr.text(), "")

    def end(self) -> None:
        self.socket.close()
        if self._process.poll() is None:
            _kill_group(self._process)
        _groups.discard(self._process.pid)


def _start(
    words: list[str],
    cwd: str | os.PathLike[str] | None,
    env: Mapping[str, str],
    limits: Limits | None = None,
    through: socket.socket | None = None,
) -> "subprocess.Popen[bytes]":
    channel = subprocess.PIPE if through is None else through.fileno()
    _starting.add(start := object())
    try:
        if _ended.is_set():
            raise ProcessFailed(f"{_shown(words)}: not started: the run was ended", 128 + signal.SIGTERM)
        process = subprocess.Popen(
            words,
            cwd=cwd,
            env=env,
            stdin=channel,
            stdout=channel,
            stderr=subprocess.PIPE,
            process_group=0,
            preexec_fn=functools.partial(_prepare, os.getpid(), limits),
        )
    except OSError as error:
        if cwd is not None and not Path(cwd).is_dir():
            raise ProcessFailed(f"{words[0]}: cannot be run in {os.fspath(cwd)}: no such directory", 127) from error
        if isinstance(error, FileNotFoundError):
            raise ProcessFailed(f"{words[0]}: no such program on PATH; install it, or put it on PATH", 127) from error
        raise ProcessFailed(f"{words[0]}: cannot be started: {error.strerror}", 126) from error
    except ValueError as error:  # NUL, or half a character
        why = f"no program can be told this ({error}); correct what names it"
        raise ProcessFailed(f"{_shown(words)}: cannot be started: {why}", 126) from error
    else:
        _groups.add(process.pid)
        if _ended.is_set():  # the end came while it was started, and did not know of it
            _signal_groups(signal.SIGTERM)
        return process
    finally:
        _starting.discard(start)


def _prepare(parent: int, limits: Limits | None) -> None:
    """In the child, before it becomes the program: have it killed when we die, and keep it off our terminal.

    The kernel takes the end of the *thread* that forked for our end; that thread is in `run` for as long as the
    program runs (under gevent there is one only). Safe after a fork beside other threads: nothing here imports or
    takes a lock.
    """
    _die_with(parent)
    # A background group that reads from the terminal is stopped, for ever; when it ignores that, reading fails.
    signal.signal(signal.SIGTTIN, signal.SIG_IGN)
    if limits is not None:
        resource.setrlimit(resource.RLIMIT_DATA, (limits.memory, limits.memory))


def _die_with(parent: int) -> None:
    if _prctl is not None:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # died before the call
            os._exit(1)


def interrupt_all() -> None:
    """Tell all that runs to stop, and start nothing any more; waits for nothing, so signal handlers may call it."""
    _ended.set()
    _signal_groups(signal.SIGTERM)


def end_all() -> None:
    """End all that still runs: politely, then for certain. Nothing is started any more."""
    interrupt_all()
    for left, longest in ((_starting, _START), (_groups, _GRACE)):
        until = time.monotonic() + longest
        while left and time.monotonic() < until:
            time.sleep(_POLL)
    _signal_groups(signal.SIGKILL)


def _signal_groups(signal_number: int) -> None:
    for group in list(_groups):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, signal_number)


@dataclass
class _Reader:
    """Takes in one pipe until it ends, and passes its lines on."""

    pipe: IO[bytes]
    on_line: Callable[[str], None] | None = None
    most: float = math.inf
    lines: list[bytes] = field(default_factory=list)
    is_over: bool = False

    def read(self) -> None:
        left = self.most
        while line := self.pipe.readline(_LINE):
            left -= len(line)
            if left < 0:
                self.is_over = True
                break
            self.lines.append(line)
            self._pass_on(line)
        self.pipe.close()

    def _pass_on(self, line: bytes) -> None:
        if self.on_line is None:
            return
        try:
            self.on_line(line.decode(errors="replace").rstrip("\r\n"))
        except FAILURES:  # what is said of a program is not worth losing it, or its output
            self.on_line = None

    def whole(self) -> bytes:
        return b"".join(self.lines)

    def text(self) -> str:
        return self.whole().decode(errors="replace")


def _write(pipe: IO[bytes], data: bytes) -> None:
    # A program may end, or close its stdin, without reading all of it: that is its own business.
    with contextlib.suppress(BrokenPipeError):
        pipe.write(data)
    with contextlib.suppress(BrokenPipeError):
        pipe.close()


def _in_background(work: Callable[..., None], *args: object) -> threading.Thread:
    thread = threading.Thread(target=work, args=args, daemon=True)
    thread.start()
    return thread


def _wait(
    process: "subprocess.Popen[bytes]",
    readers: Sequence[threading.Thread],
    deadline: float,
    is_enough: Callable[[], bool],
    watch: Callable[[int], None] | None = None,
) -> bool:
    """True once the program has ended and its output is in; False when the deadline came first, or too much output.

    The readers are waited for first: the end of the output is noticed at once, the end of a process, with a
    deadline, only by polling.
    """
    give_up = math.inf
    for reader in readers:
        while reader.is_alive() and time.monotonic() < min(give_up, deadline) and not is_enough():
            reader.join(_POLL)
            if watch:
                watch(process.pid)
            if give_up == math.inf and process.poll() is not None:
                give_up = time.monotonic() + _DRAIN
    if is_enough():
        return False
    try:
        process.wait(None if deadline == math.inf else max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        return False
    return True


def _kill_group(process: "subprocess.Popen[bytes]") -> None:
    """End the program and all it started: politely, so that git and sops remove their locks, then for certain."""
    for signal_number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal_number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE)


def _shown(words: Sequence[str]) -> str:
    return textwrap.shorten(shlex.join(words), _SHOWN, placeholder=" …")


def _ending(status: int) -> str:
    return f"status {status}" if status >= 0 else f"killed by {signal.Signals(-status).name}"


def _last_words(stderr: str) -> str:
    lines = stderr.strip().split("\n")
    return f": {lines[-1].strip()}" if lines[-1] else ""
