"""The two daemons: pveproxy answers, and forwards protected calls to pvedaemon with its three workers."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from lab.api.errors import ApiError

WORKERS = 3
PROXY_SECONDS = 30.0
T = TypeVar("T")


class Daemon:
    """pvedaemon: serving, frozen or dead. Created in the event loop; any thread may change its state."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._workers = asyncio.Semaphore(WORKERS)
        self._serving = asyncio.Event()
        self._serving.set()
        self._dead = False
        self._late: set[asyncio.Task[Any]] = set()

    def freeze(self) -> None:
        """Make calls wait: their caller gets 596 after 30 s, and they still run later."""
        self._loop.call_soon_threadsafe(self._serving.clear)
        self._dead = False

    def kill(self) -> None:
        """Refuse calls immediately."""
        self._loop.call_soon_threadsafe(self._serving.clear)
        self._dead = True

    def start(self) -> None:
        self._dead = False
        self._loop.call_soon_threadsafe(self._serving.set)

    async def run(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Return the call's result once a worker is free."""
        if self._dead:
            raise ApiError("Connection refused", 595, body="")
        if self._serving.is_set():
            return await self._in_worker(work)
        task = asyncio.create_task(self._in_worker(work))
        done, _ = await asyncio.wait({task}, timeout=PROXY_SECONDS)
        if not done:
            self._late.add(task)
            task.add_done_callback(self._forget)
            raise ApiError("Connection timed out", 596, body="")
        return task.result()

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._late.discard(task)
        if not task.cancelled():
            task.exception()

    async def _in_worker(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        await self._serving.wait()
        async with self._workers:
            return await work()
