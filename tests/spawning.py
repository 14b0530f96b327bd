"""Start programs as CPython does, in C and, where nothing is to run in the child, by vfork; under gevent too.

gevent's own `Popen` forks and then runs Python in the child: with 30 MB of memory that takes ten milliseconds of CPU
for each program, and forty with the memory of a process that runs tests, instead of two.

What nixherd.base.process has run in the child, so that the program ends with us and is kept off our terminal, is left
out: it alone would need the fork. The second is done without it here, the first is not: the tests that show it start
processes of ours, as people do.
"""

import importlib.util
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache, partial, partialmethod
from threading import get_native_id
from types import SimpleNamespace
from typing import Any

_OF_THE_KERNEL = ["close", "waitpid"]
_PREEXEC_FN = 2
_UNIVERSAL_NEWLINES = 7  # the place of the argument that CPython's function lacks


@cache
def put_right(*, gevent: bool = True) -> None:
    """Change how `Popen`, CPython's and gevent's, starts programs; how it waits for them stays. Safe to call again.

    Without `gevent` that is not imported for it.
    """
    unpatched = subprocess.Popen
    if gevent:
        from gevent import monkey
        from gevent.subprocess import Popen

        [unpatched] = monkey.get_original("subprocess", ["Popen"])
        Popen._close_pipe_fds = _cpythons()._close_pipe_fds
        Popen._execute_child = _execute_child
    unpatched._execute_child = partialmethod(_shortly, unpatched._execute_child)  # type: ignore[attr-defined]


@cache
def _cpythons() -> Any:
    """CPython's `Popen`, of a `subprocess` that nobody has patched: gevent takes parts of the module away.

    Nor is its `os`: gevent's `close` does so later, when it waits, and what reads until then would wait for ever.
    """
    from gevent import monkey

    specification = importlib.util.find_spec("subprocess")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    kernels = dict(zip(_OF_THE_KERNEL, monkey.get_original("os", _OF_THE_KERNEL), strict=True))
    module.__dict__["os"] = SimpleNamespace(**{**vars(os), **kernels})
    return module.Popen


def _execute_child(process: Any, *arguments: Any) -> None:
    """Stand in for the method of gevent's `Popen`: raises what CPython's raises when the program cannot be started."""
    from gevent.os import fork_and_watch

    process._loop.install_sigchld()
    p2cread, c2pwrite, errwrite = arguments[11], arguments[14], arguments[16]
    for given, standard in ((p2cread, 0), (c2pwrite, 1), (errwrite, 2)):
        with suppress(OSError):  # as gevent does: what it made non-blocking would surprise other programs
            process._remove_nonblock_flag(standard if given == -1 else given)

    def start() -> int:
        group = -1 if arguments[-1] is None else arguments[-1]
        shared = arguments[:_UNIVERSAL_NEWLINES] + arguments[_UNIVERSAL_NEWLINES + 1 : -1]
        _shortly(process, _cpythons()._execute_child, *shared, group)
        pid: int = process.pid
        return pid

    fork_and_watch(process._on_child, process._loop, True, start)


def _shortly(process: Any, execute_child: Callable[..., None], *arguments: Any) -> None:
    """Leave out the function that nixherd.base.process gives; the limit that it would set is set at once."""
    function = arguments[_PREEXEC_FN]
    programs = sys.modules.get("nixherd.base.process")
    is_ours = programs is not None and isinstance(function, partial) and function.func is programs._prepare
    if not is_ours:
        execute_child(process, *arguments)
        return
    with _off_the_terminal():
        execute_child(process, *arguments[:_PREEXEC_FN], None, *arguments[_PREEXEC_FN + 1 :])
    if limits := function.args[1]:
        with suppress(ProcessLookupError):
            resource.prlimit(process.pid, resource.RLIMIT_DATA, (limits.memory, limits.memory))


@contextmanager
def _off_the_terminal() -> Iterator[None]:
    """What is started meanwhile is not stopped when it reads from a terminal: reading fails.

    It ignores the signal. Where another thread than the main one starts it, which alone may set actions, it has the
    signal blocked: some shells undo that, but what begins other threads here has no terminal.
    """
    if get_native_id() != os.getpid():
        masked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTIN})
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, masked)
        return
    before = signal.signal(signal.SIGTTIN, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGTTIN, before)
