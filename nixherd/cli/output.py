"""Results on stdout, a table for people and JSON for everything else; progress on stderr."""

import json
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from nixherd.display import one_line, visible_values
from nixherd.sizes import human
from nixherd.terminal import is_terminal, put, say, say_text

if TYPE_CHECKING:
    from rich.console import Console  # noqa: TID251


def wants_json(as_json: bool | None) -> bool:
    """As it was said; unsaid, JSON wherever stdout is no terminal."""
    return as_json if as_json is not None else not is_terminal(sys.stdout)


def show_json(value: Any) -> None:
    say_text(json.dumps(visible_values(value), indent=2, ensure_ascii=False))


def show_rows(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], as_json: bool | None, empty: str = "") -> None:
    """Rows with these columns; JSON has all that they have."""
    if wants_json(as_json):
        show_json(list(rows))
        return
    if not rows:
        say(empty or "none", err=True)
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    numbers = {column for column in columns if all(isinstance(row.get(column), (int, type(None))) for row in rows)}
    for column in columns:
        table.add_column(
            one_line(column).replace("_", " "), justify="right" if column in numbers else "left", no_wrap=True
        )
    for row in rows:
        table.add_row(*(_cell(column, row.get(column)) for column in columns))
    screen = console()
    with screen.capture() as shown:
        screen.print(table)
    put(shown.get(), nl=False)


def show_facts(facts: Mapping[str, Any], as_json: bool | None) -> None:
    """One thing, a line each."""
    if wants_json(as_json):
        show_json(dict(facts))
        return
    width = max((len(key) for key in facts), default=0)
    for key, value in facts.items():
        say(f"{one_line(key):{width}}  {_cell(key, value)}")


def _cell(column: str, value: Any) -> str:
    if value is None or value == "" or value == ():
        return "-"
    if column in ("memory", "disk", "size", "used", "total", "available") and isinstance(value, int):
        return human(value)
    if column == "uptime" and isinstance(value, int):
        return duration(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ",".join(map(one_line, value))
    return one_line(value)


def duration(seconds: int) -> str:
    """`3d 4h`, `5m 10s`."""
    parts = [(seconds // 86400, "d"), (seconds // 3600 % 24, "h"), (seconds // 60 % 60, "m"), (seconds % 60, "s")]
    said = [f"{number}{unit}" for number, unit in parts if number]
    return " ".join(said[:2]) or "0s"


def console(*, err: bool = False) -> "Console":
    """Wide where it is no terminal: a table that is piped is not folded. What stands in brackets is no markup."""
    from rich.console import Console  # noqa: TID251

    stream = sys.stderr if err else sys.stdout
    width = None if is_terminal(stream) else 240
    return Console(file=stream, width=width, highlight=False, markup=False, emoji=False, soft_wrap=False)


def narrate(lines: Iterable[str]) -> None:
    """What is said beside the results."""
    for line in lines:
        say(line, err=True)


Say = Callable[[str], None]


@contextmanager
def progress(what: str) -> Iterator[Say]:
    """Gives whoever works something to tell its lines to; everything goes to stderr."""
    if is_terminal(sys.stderr):
        with _bar(what) as say:
            yield say
    else:
        yield _Lines(what)


class _Lines:
    """Each line once, with how long it took until then."""

    def __init__(self, what: str) -> None:
        self._what, self._began, self._last = what, time.monotonic(), ""

    def __call__(self, line: str) -> None:
        if line != self._last:
            say(f"{self._what}: {line} ({time.monotonic() - self._began:.0f} s)", err=True)
        self._last = line


@contextmanager
def _bar(what: str) -> Iterator[Say]:
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    words = partial(TextColumn, markup=False)
    columns = (words("{task.description}"), BarColumn(), words("{task.fields[line]}"), TimeElapsedColumn())
    with Progress(*columns, console=console(err=True), transient=True) as bar:
        task = bar.add_task(one_line(what), total=None, line="")

        def say(line: str) -> None:
            share = percentage(line)
            if share is None:
                bar.update(task, line=one_line(line)[:80])
            else:
                bar.update(task, line=one_line(line)[:80], total=100.0, completed=share)

        yield say


_PERCENT = re.compile(r"\(?\b(\d{1,3}(?:\.\d+)?)\s?%\)?")


def percentage(line: str) -> float | None:
    """How far a task is by a line of its log, 0 to 100; None where it does not say."""
    found = _PERCENT.findall(line)
    return min(100.0, float(found[-1])) if found else None
