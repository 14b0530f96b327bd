"""How far long work is: a bar on a terminal, lines elsewhere, with the percentage that the task itself gives."""

import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from nixherd.cli.output import console
from nixherd.display import one_line
from nixherd.terminal import is_terminal, say

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
