"""A deployment under way, seen through its journal: a live table on a terminal, plain lines elsewhere. On stderr."""

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nixherd.cli.output import console
from nixherd.deploy.journal import NAME, parsed
from nixherd.display import one_line
from nixherd.terminal import is_terminal, say

if TYPE_CHECKING:
    from rich.table import Table

Look = Callable[[], None]


@contextmanager
def follow(directory: Path) -> Iterator[Look]:
    """Gives what is to be called now and then, and once more in the end."""
    reader = _Reader(directory / NAME)
    if not is_terminal(sys.stderr):
        yield lambda: reader.tell(_line)
        return
    from rich.live import Live

    table = _Table()
    with Live(table.render(), console=console(err=True), refresh_per_second=8, transient=True) as live:

        def look() -> None:
            reader.tell(table.take)
            live.update(table.render())

        yield look


class _Reader:
    """Reads a journal on from where it was."""

    def __init__(self, path: Path) -> None:
        self._path, self._offset = path, 0

    def tell(self, take: Callable[[Mapping[str, Any]], None]) -> None:
        with self._path.open("rb") as file:
            file.seek(self._offset)
            text = file.read()
        whole = text[: text.rfind(b"\n") + 1]
        self._offset += len(whole)
        for entry in parsed(whole.decode(errors="replace")):
            take(entry)


def _line(entry: Mapping[str, Any]) -> None:
    """What a log of CI shows of an entry."""
    host = entry.get("host")
    match entry["event"]:
        case "stage":
            say(f"{host}: {entry['stage']}", err=True)
        case "said":
            say(f"{f'{host}: ' if host else ''}{entry['text']}", err=True)
        case "end":
            say(f"{host}: {': '.join(filter(None, (entry['outcome'], entry.get('why'))))}", err=True)


class _Table:
    """A row per host: stage, for how long, its last line."""

    def __init__(self) -> None:
        self._rows: dict[str, dict[str, Any]] = {}
        self._said = ""

    def take(self, entry: Mapping[str, Any]) -> None:
        host = entry.get("host")
        for each in entry.get("hosts", ()):
            self._rows.setdefault(each, {"stage": "connect", "since": entry["time"], "line": ""})
        if host is None:
            self._said = entry.get("text", self._said)
            return
        row = self._rows.setdefault(host, {"stage": "", "since": entry["time"], "line": ""})
        match entry["event"]:
            case "stage":
                row.update(stage=entry["stage"], since=entry["time"])
                self._said = self._said if entry["stage"] == "build" else ""  # it is over for all
            case "said":
                row["line"] = entry["text"]
            case "end" if "ended" not in row:
                row.update(stage=entry["outcome"], ended=entry["time"], line=entry.get("why") or row["line"])

    def render(self) -> "Table":
        from rich.table import Table

        table = Table(box=None, pad_edge=False, caption=one_line(self._said) or None, caption_justify="left")
        for column in ("host", "stage", "time", ""):
            table.add_column(column, no_wrap=True)
        for host, row in self._rows.items():
            seconds = row.get("ended", time.time()) - row["since"]
            table.add_row(one_line(host), one_line(row["stage"]), f"{seconds:.0f} s", one_line(row["line"]))
        return table
