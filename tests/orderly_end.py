"""SIGTERM, which a CI sends when time is over, ends a run as Ctrl-C does: fixtures tear down, and no lab stays.

A pytest plugin. The process that people start tells its workers, waits for their ends, and starts no others.
"""

import os
import signal
from contextlib import suppress
from typing import Any

import pytest


class OrderlyEnd:
    """For one process: the main one, a worker, or the only one."""

    def __init__(self, config: pytest.Config) -> None:
        self._config, self._pid = config, os.getpid()
        self._workers = list[int]()
        self._is_told = False
        self._listen()

    def _listen(self) -> None:
        signal.signal(signal.SIGTERM, self._told)

    def _told(self, number: int, frame: object) -> None:
        if os.getpid() != self._pid:  # a test has forked: it ends as any process does
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        if self._is_told:
            return  # the fixtures tear down already
        self._is_told = True
        main: Any = self._config.pluginmanager.get_plugin("dsession")
        if not self._workers or main is None:
            raise KeyboardInterrupt("SIGTERM")
        main.shouldstop, main._max_worker_restart = "SIGTERM", 0  # it waits for all of them, and replaces none
        for pid in self._workers:
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    @pytest.hookimpl(optionalhook=True)  # xdist's, in the main process: there is a worker
    def pytest_configure_node(self, node: Any) -> None:
        self._workers.append(node.gateway._io.popen.pid)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self) -> None:
        if self._is_told:  # a command of ours that ran in this process has taken it for its own end
            raise KeyboardInterrupt("SIGTERM")
        self._listen()  # such a command listens by itself, and leaves it at that
