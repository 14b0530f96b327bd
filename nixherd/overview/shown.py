"""What a server shows: the last document that was gathered, its pages, and why there is none that is newer."""

import json
import secrets
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from nixherd.base.errors import FAILURES
from nixherd.base.terminal import worded
from nixherd.overview.page.render import Pages

Gathered = tuple[Mapping[str, Any], Mapping[str, Sequence[Mapping[str, Any]]]]
"""a document, and by host what was done to it"""


class Shown:
    """What is shown: the last document that was gathered, and why there is none that is newer."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._start, self._number = secrets.token_hex(4), 0
        self.content: Content | None = None
        self.problem: str | None = None

    @property
    def version(self) -> str:
        return f"{self._start}-{self._number}"

    def look(self, gather: Callable[[], Gathered]) -> None:
        """Gather anew; where that fails, what was shown before stays, and the pages say why."""
        try:
            document, histories = gather()
        except FAILURES as error:
            why = str(worded(error, "gathering what runs where")).splitlines()[0]
            self._set((self.content.document, self.content.histories) if self.content else None, why)
        else:
            self._set((document, histories), None)

    def _set(self, gathered: Gathered | None, problem: str | None) -> None:
        with self._changed:
            self._number += 1
            self.problem = problem
            notice = f"Looking again failed, and this is as old as it says: {problem}" if problem else None
            self.content = Content(*gathered, self.version, notice) if gathered else None
            self._changed.notify_all()

    def wait(self, version: str, seconds: float) -> str:
        """The version once it is another than this one, or after so many seconds."""
        with self._changed:
            self._changed.wait_for(lambda: self.version != version, seconds)
            return self.version


@dataclass(frozen=True)
class Content:
    """What one gathering brought; each page is made when it is first read, the index once."""

    document: Mapping[str, Any]
    histories: Mapping[str, Sequence[Mapping[str, Any]]]
    version: str
    notice: str | None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @cached_property
    def _pages(self) -> Pages:
        return Pages(self.document, self.histories, events=f"events?since={self.version}", notice=self.notice)

    @cached_property
    def _index(self) -> bytes:
        return self._pages.index().encode()

    @cached_property
    def _hosts(self) -> Mapping[str, Mapping[str, Any]]:
        names = self._pages.names
        return {names[host["host"]]: host for host in self.document["hosts"]}

    def answer(self, path: str) -> tuple[str, bytes] | None:
        """Type and body of what is at this path; None where nothing is."""
        with self._lock:  # a thousand hosts' index is made by one thread, not by as many as ask
            if path in ("/", "/index.html"):
                return "text/html; charset=utf-8", self._index
            if path == "/status.json":
                return "application/json", json.dumps(self.document).encode()
            if path == "/metrics":
                from nixherd.overview.metrics import CONTENT_TYPE, exposition

                return CONTENT_TYPE, exposition(dict(self.document))
            host = self._hosts.get(path.removeprefix("/hosts/")) if path.startswith("/hosts/") else None
            return ("text/html; charset=utf-8", self._pages.host(host).encode()) if host else None
