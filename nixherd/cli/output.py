"""Results on stdout, a table for people and JSON for everything else; progress on stderr."""

import json
import os
import re
import shlex
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nixherd.base.errors import Usage
from nixherd.base.names import human
from nixherd.base.terminal import is_terminal, one_line, put, say, say_text, visible_values
from nixherd.cli.colours import BOLD, Line, coloured, painted
from nixherd.cli.tables import Table, name_shown

if TYPE_CHECKING:
    from rich.console import Console  # noqa: TID251


SILENCE = 30.0  # seconds, after which it is said what is being waited for


def wants_json(as_json: bool | None) -> bool:
    """Whether the result is to be JSON: as the option says, without one wherever stdout is not a terminal."""
    return as_json if as_json is not None else not is_terminal(sys.stdout)


def can_ask() -> bool:
    """Whether a person can be asked: stdin is a terminal."""
    return is_terminal(sys.stdin)


def confirm(question: str, refusal: str, *, yes: bool, plan: Iterable[object] = (), unattended: bool = False) -> None:
    """Show the plan, and ask the person at the terminal. Usage, beginning with `refusal`, without their yes.

    With `yes` nobody is asked. Where nobody can be, that is Usage too, or with `unattended` as good as a yes.
    """
    if yes or (unattended and not can_ask()):
        return
    if not can_ask():
        raise Usage(f"{refusal}: without a terminal to ask on, say --yes")
    narrate(plan)
    if not click.confirm(question, err=True):
        raise Usage(f"{refusal}; nothing was changed")


def ask(
    option: str, question: str, default: str | None = None, choices: Mapping[str, str] | None = None, *, quiet: bool
) -> str:
    """Ask the person at the terminal; in a pipe give the default. Usage where neither is possible."""
    if default is not None and (quiet or not is_terminal(sys.stdin)):
        return default
    if not is_terminal(sys.stdin):
        known = f": {', '.join(choices)}" if choices else ""
        what = f"{question[0].lower()}{question[1:]}{known}"
        raise Usage(f"{option}: missing ({what}), and it cannot ask without a terminal")
    narrate(f"  {choice:8}{meaning}" for choice, meaning in (choices or {}).items())
    kind = click.Choice(list(choices)) if choices else str
    answer: str = click.prompt(
        question, default=default, type=kind, err=True, show_default=bool(default), show_choices=False
    )
    return answer.strip()


def show(document: Any, lines: Iterable[object], as_json: bool | None) -> None:
    """Show a result: the document as JSON, or its lines for people."""
    if wants_json(as_json):
        show_json(document)
        return
    for line in lines:
        if isinstance(line, Line):
            line.put()
        else:
            say(line)


def show_json(value: Any) -> None:
    say_text(json.dumps(visible_values(value), indent=2, ensure_ascii=False))


def show_rows(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], as_json: bool | None, empty: str = "") -> None:
    """Show rows with these columns; as JSON with all that they have."""
    if wants_json(as_json):
        show_json(list(rows))
        return
    if not rows:
        say(empty or "none", err=True)
        return
    numbers = {column for column in columns if all(isinstance(row.get(column), (int, type(None))) for row in rows)}
    texts = [{column: _cell(column, row.get(column)) for column in columns} for row in rows]
    table = Table(columns, texts, frozenset(numbers))
    width = console().width if is_terminal(sys.stdout) else None
    fitted = table.fitted(width)
    put("\n".join(fitted.lines(_painted)))
    if fitted.left_out:
        names = ", ".join(map(name_shown, fitted.left_out))
        say(f"no room for {names} in {width} columns; --json has all", err=True)


_OUTCOMES = ("status", "outcome", "state", "machine")


def _painted(column: str | None, value: str, text: str) -> str:
    """Give a cell's text its colour, or a heading's."""
    if column is None:
        return painted(text, BOLD)
    return coloured(text, value) if column in _OUTCOMES else text


def show_facts(facts: Mapping[str, Any], as_json: bool | None) -> None:
    """Show what is known of one thing, a line each."""
    width = max((len(key) for key in facts), default=0)
    show(dict(facts), (f"{one_line(key):{width}}  {_cell(key, value)}" for key, value in facts.items()), as_json)


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
    """Write seconds like `3d 4h` or `5m 10s`."""
    parts = [(seconds // 86400, "d"), (seconds // 3600 % 24, "h"), (seconds // 60 % 60, "m"), (seconds % 60, "s")]
    units = [f"{number}{unit}" for number, unit in parts if number]
    return " ".join(units[:2]) or "0s"


def console(*, err: bool = False) -> "Console":
    """Make rich's console, wide where the stream is not a terminal, so that no table is folded in a pipe. No markup."""
    from rich.console import Console  # noqa: TID251

    stream = sys.stderr if err else sys.stdout
    width = None if is_terminal(stream) else 240
    return Console(file=stream, width=width, highlight=False, markup=False, emoji=False, soft_wrap=False)


def narrate(lines: Iterable[object]) -> None:
    """Say lines beside the results, on stderr."""
    for line in lines:
        if isinstance(line, Line):
            line.put(err=True)
        else:
            say(line, err=True)


Say = Callable[[str], None]


@contextmanager
def progress(what: str) -> Iterator[Say]:
    """Give the work what to call with each line of its progress, which goes to stderr."""
    if is_terminal(sys.stderr):
        with _bar(what) as say:
            yield say
        return
    lines, over = _Lines(what), threading.Event()

    def beat() -> None:
        while not over.wait(1.0):
            lines.beat()

    heart = threading.Thread(target=beat, daemon=True)
    heart.start()
    try:
        yield lines
    finally:
        over.set()
        heart.join()


class _Lines:
    """Say each line once, with the seconds until then; in silence, now and then that it is still that."""

    def __init__(self, what: str) -> None:
        self._what, self._last = what, ""
        self._began = self._spoke = time.monotonic()

    def __call__(self, line: str) -> None:
        if line != self._last:
            self._last = line
            self._say(line)

    def beat(self) -> None:
        if time.monotonic() - self._spoke >= SILENCE:
            self._say(f"still: {self._last or 'at work'}")

    def _say(self, line: str) -> None:
        now = time.monotonic()
        self._spoke = now
        say(f"{self._what}: {line} ({now - self._began:.0f} s)", err=True)


@contextmanager
def _bar(what: str) -> Iterator[Say]:
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    text = partial(TextColumn, markup=False)
    columns = (text("{task.description}"), BarColumn(), text("{task.fields[line]}"), TimeElapsedColumn())
    with Progress(*columns, console=console(err=True), transient=True) as bar:
        task = bar.add_task(one_line(what), total=None, line="")

        def say(line: str) -> None:
            share = percentage(line)
            total = None if share is None else 100.0
            bar.update(task, line=one_line(line)[:80], total=total, completed=share)

        yield say


_PERCENT = re.compile(r"\(?\b(\d{1,3}(?:\.\d+)?)\s?%\)?")


def percentage(line: str) -> float | None:
    """Read how far a task is from a line of its log, 0 to 100; None where the line does not say."""
    shares = _PERCENT.findall(line)
    return min(100.0, float(shares[-1])) if shares else None


# Commands to type next


def is_here(directory: Path) -> bool:
    """Whether it is the current directory; `directory` is resolved."""
    return os.path.realpath(Path.cwd()) == str(directory)


def typed(fleet: Path, *words: str) -> str:
    """A command of ours about the fleet in this directory, as it is typed here."""
    return shlex.join(("nixherd", *(() if is_here(fleet) else ("--fleet", str(fleet))), *words))
