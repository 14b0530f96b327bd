"""What is shown of a run while it goes on: a table on a terminal; elsewhere lines, one in half a minute at least."""

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nixherd.base.terminal import is_terminal, one_line, say
from nixherd.cli.colours import coloured
from nixherd.cli.output import SILENCE, console
from nixherd.cli.tables import GAP, cells, padded, shortened
from nixherd.deploy.report import JOURNAL, parsed

if TYPE_CHECKING:
    from rich.text import Text

NEWS = 10.0  # seconds of silence, after which a log is told how far something is
_NAMED = 3  # hosts that a line names
Look = Callable[[], None]


@contextmanager
def follow(directory: Path) -> Iterator[Look]:
    """Give what is to be called now and then, and once more in the end, to show the journal's news."""
    reader, state = _Reader(directory / JOURNAL), State()
    if not is_terminal(sys.stderr):
        lines = Lines(state)

        def look_on() -> None:
            reader.tell(lines.take)
            lines.look()

        yield look_on
        return
    from rich.live import Live

    screen = console(err=True)
    with Live(_text(state, screen.width, screen.height), console=screen, refresh_per_second=8, transient=True) as live:

        def look() -> None:
            reader.tell(state.take)
            live.update(_text(state, screen.width, screen.height))

        yield look


class _Reader:
    """Read a journal from where the last reading ended."""

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


class State:
    """How far each host of a run is: its stage, since when, its last line; and what all of them wait for."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, Any]] = {}
        self.caption = ""
        self._began = time.time()

    def take(self, entry: Mapping[str, Any]) -> None:
        host = entry.get("host")
        for each in entry.get("hosts", ()):
            self.rows.setdefault(each, {"stage": "connect", "since": entry["time"], "line": ""})
        if host is None:
            self.caption = entry.get("text", self.caption) if entry["event"] in ("said", "progress") else self.caption
            return
        row = self.rows.setdefault(host, {"stage": "", "since": entry["time"], "line": ""})
        match entry["event"]:
            case "stage":
                row.update(stage=entry["stage"], since=entry["time"], line="")
                shared = ("reach", "evaluate", "build")  # after them nobody waits for what all wait for
                self.caption = self.caption if entry["stage"] in shared else ""
            case "said" | "progress":
                row["line"] = entry["text"]
            case "end" if "ended" not in row:
                row.update(stage=entry["outcome"], ended=entry["time"], line=entry.get("why") or row["line"])

    def waiting(self) -> str:
        """Say in one line who is at which stage for how long, and what is known of that."""
        now, at = time.time(), dict[str, list[str]]()
        for host, row in self.rows.items():
            if "ended" not in row:
                at.setdefault(row["stage"] or "begin", []).append(host)
        if not self.rows:
            return f"pyinfra is starting ({now - self._began:.0f} s)"
        parts = []
        for stage, hosts in at.items():
            since = min(self.rows[host]["since"] for host in hosts)
            last = next((self.rows[host]["line"] for host in reversed(hosts) if self.rows[host]["line"]), "")
            parts.append(f"{stage}: {named(hosts)} ({now - since:.0f} s){f', {last}' if last else ''}")
        return "; ".join([*parts, *([self.caption] if self.caption else [])]) or "every host has ended"

    def lines(self, width: int, height: int) -> list[tuple[str, str]]:
        """Return the lines of a table of `width` cells and `height` lines, each with the outcome or stage in it.

        Host, stage and time are whole, whatever a host has to say; where there are more hosts than lines, those that
        are at work stay.
        """
        now = time.time()
        rows = [
            (one_line(host), one_line(row["stage"]), f"{row.get('ended', now) - row['since']:.0f} s", row)
            for host, row in self.rows.items()
        ]
        room = max(1, height - 2 - bool(self.caption))
        hidden: list[str] = []
        if len(rows) > room:
            rows.sort(key=lambda row: ("ended" in row[3], row[3]["since"]))
            hidden = [stage for _, stage, _, _ in rows[room - 1 :]]
            rows = rows[: room - 1]
        wide = [max((cells(each) for each in column), default=0) for column in list(zip(*rows, strict=True))[:3]]
        lines = []
        for host, stage, seconds, row in rows:
            fixed = GAP.join((padded(host, wide[0]), padded(stage, wide[1]), padded(seconds, wide[2], right=True)))
            left = width - cells(fixed) - len(GAP) - 1
            remark = shortened(one_line(row["line"]), left) if left > 0 else ""
            parts = (
                [f"{fixed}{GAP}{remark}".rstrip()] if cells(fixed) < width else [host, f"{GAP}{stage}{GAP}{seconds}"]
            )
            lines += [(part, stage) for part in parts]
        if hidden:
            counts = Counter(hidden)
            rest = f"and {len(hidden)} more: {', '.join(f'{number} {stage}' for stage, number in counts.items())}"
            lines.append((shortened(rest, width - 1), ""))
        if self.caption:
            lines.append((shortened(one_line(self.caption), width - 1), ""))
        return lines


def _text(state: State, width: int, height: int) -> "Text":
    from rich.text import Text

    painted = [coloured(line, stage, err=True) for line, stage in state.lines(width, height)]
    return Text.from_ansi("\n".join(painted) or "connecting …", overflow="fold")


def named(hosts: Sequence[str]) -> str:
    """Name some hosts, or a few of many."""
    more = len(hosts) - _NAMED
    return ", ".join(hosts) if more <= 1 else f"{', '.join(hosts[:_NAMED])} and {more} more"


class Lines:
    """What a log of CI shows of a run: stages, ends and remarks as they come, and what is waited for meanwhile."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._spoke = time.monotonic()

    def take(self, entry: Mapping[str, Any]) -> None:
        """Say what is new; how far a build or a copy is only now and then."""
        host, event = entry.get("host"), entry["event"]
        self._state.take(entry)
        if event == "progress" and time.monotonic() - self._spoke < NEWS:
            return
        match event:
            case "stage":
                self._say(f"{host}: {entry['stage']}")
            case "said" | "progress":
                self._say(f"{f'{host}: ' if host else ''}{entry['text']}")
            case "end":
                self._say(f"{host}: {': '.join(filter(None, (entry['outcome'], entry.get('why'))))}")

    def look(self) -> None:
        """Say what is waited for, where nothing was said for long."""
        if time.monotonic() - self._spoke >= SILENCE:
            self._say(f"still: {self._state.waiting()}")

    def _say(self, text: str) -> None:
        say(text, err=True)
        self._spoke = time.monotonic()


class Heard:
    """Passes on the lines of a program; says that it is still at work, and with what, where it is silent for long."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._last = ""
        self._since = self._spoke = time.monotonic()

    def __call__(self, line: str) -> None:
        if line.strip():
            self._last, self._since = line.strip(), time.monotonic()
            self._spoke = self._since
        self._tell(line)

    def look(self) -> None:
        """Say so where it is time."""
        now = time.monotonic()
        if now - self._spoke >= SILENCE:
            self._spoke = now
            say(f"still: {self._last or 'pyinfra is starting'} ({now - self._since:.0f} s)", err=True)

    @contextmanager
    def followed(self) -> Iterator[Look]:
        """Give what is to be called now and then."""
        yield self.look
