"""Start programs under gevent as CPython does, in C and, where nothing is to run in the child, by vfork.

gevent's own `Popen` forks and then runs Python in the child: with 30 MB of memory that takes five milliseconds of CPU
for each program, and twenty with the memory of a process that runs tests, instead of one.
"""

import importlib.util
import os
from contextlib import suppress
from functools import cache
from types import SimpleNamespace
from typing import Any

from gevent import monkey
from gevent.os import fork_and_watch
from gevent.subprocess import Popen

_OF_THE_KERNEL = ["close", "waitpid"]
_UNIVERSAL_NEWLINES = 7  # the place of the argument that CPython's function lacks


def put_right() -> None:
    """Change how gevent's `Popen` starts programs; how it waits for them stays. Safe to call again."""
    Popen._close_pipe_fds = _cpythons()._close_pipe_fds
    Popen._execute_child = _execute_child


@cache
def _cpythons() -> Any:
    """CPython's `Popen`, of a `subprocess` that nobody has patched: gevent takes parts of the module away.

    Nor is its `os`: gevent's `close` does so later, when it waits, and what reads until then would wait for ever.
    """
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
    process._loop.install_sigchld()
    p2cread, c2pwrite, errwrite = arguments[11], arguments[14], arguments[16]
    for given, standard in ((p2cread, 0), (c2pwrite, 1), (errwrite, 2)):
        with suppress(OSError):  # as gevent does: what it made non-blocking would surprise other programs
            process._remove_nonblock_flag(standard if given == -1 else given)

    def start() -> int:
        group = -1 if arguments[-1] is None else arguments[-1]
        shared = arguments[:_UNIVERSAL_NEWLINES] + arguments[_UNIVERSAL_NEWLINES + 1 : -1]
        _cpythons()._execute_child(process, *shared, group)
        pid: int = process.pid
        return pid

    fork_and_watch(process._on_child, process._loop, True, start)
