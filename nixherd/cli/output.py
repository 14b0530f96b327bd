"""Results on stdout: a table for people, JSON for everything else."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nixherd.display import one_line, visible_values
from nixherd.sizes import human
from nixherd.terminal import is_terminal, put, say, say_text

if TYPE_CHECKING:  # imported where it is needed: JSON needs none of it
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
