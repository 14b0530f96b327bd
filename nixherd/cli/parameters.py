"""Arguments and options that commands share, and completion of guests' names."""

import hashlib
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

from nixherd.cli.front import Front
from nixherd.durations import LONGEST, parse_seconds
from nixherd.errors import FAILURES
from nixherd.files import expanded
from nixherd.sizes import parse_size

F = TypeVar("F", bound=Callable[..., Any])


class Seconds(click.ParamType):  # type: ignore[type-arg]
    """A number of seconds, 1 to a month."""

    name = "seconds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            return parse_seconds(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class WholeSeconds(click.ParamType):  # type: ignore[type-arg]
    """A whole number of seconds, as servers and machines take them."""

    name = "seconds"

    def __init__(self, least: int, most: int = LONGEST) -> None:
        self.least, self.most = least, most

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        found = int(value) if re.fullmatch(r"[0-9]{1,15}", str(value), re.ASCII) else -1
        if not self.least <= found <= self.most:
            what = f"{value} is no number of seconds from {self.least} to {self.most}; write one like 60"
            self.fail(what, param, ctx)
        return found


class Size(click.ParamType):  # type: ignore[type-arg]
    """Bytes, written like 64G."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        try:
            if str(value).isdecimal():
                raise ValueError
            return parse_size(str(value))
        except ValueError:
            self.fail(f"{value!r} is no size; write one like 64G", param, ctx)


class Guest(click.ParamType):  # type: ignore[type-arg]
    """A guest's name, which TAB completes."""

    name = "guest"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        names = _completions(_fleet_of(ctx))
        return [CompletionItem(name) for name in names if name.startswith(incomplete.lower())]


def _fleet_of(ctx: click.Context) -> str:
    root = ctx.find_root()
    return str(root.params.get("fleet") or os.environ.get("FLEET") or "fleet")


def _completions(directory: str) -> list[str]:
    """The names of the fleet's guests, kept while no file of the fleet changes. Never an error."""
    from nixherd.cli.names import names_of
    from nixherd.fleet.load import load_fleet
    from nixherd.fleet.world import look

    try:
        world = look(expanded(directory).absolute())
        key = hashlib.sha256(repr(sorted(map(repr, world.fingerprint))).encode()).hexdigest()
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        kept = Path(home) / "nixherd" / "completion.json"
        known = json.loads(kept.read_text()) if kept.exists() else {}
        if known.get("key") != key:
            known = {"key": key, "names": sorted(names_of(load_fleet(directory, world)))}
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_text(json.dumps(known))
        return list(known["names"])
    except FAILURES:
        return []


guest = click.argument("guest", type=Guest())


def json_option(command: F) -> F:
    """--json and --table; neither: a table on a terminal, JSON elsewhere."""

    def said(ctx: click.Context, param: click.Parameter, value: bool | None) -> None:
        if value is not None:
            ctx.ensure_object(Front).as_json = value

    options = {"default": None, "expose_value": False, "is_eager": True}
    return click.option("--json/--table", callback=said, help="JSON or a table; by default as stdout is.", **options)(  # type: ignore[arg-type]
        command
    )


def changing(command: F) -> F:
    """What every command that changes something takes."""

    def planned(ctx: click.Context, param: click.Parameter, value: bool) -> None:
        ctx.ensure_object(Front).dry_run = value

    def limited(ctx: click.Context, param: click.Parameter, value: float) -> None:
        ctx.ensure_object(Front).timeout = value

    command = click.option(
        "--dry-run", is_flag=True, callback=planned, expose_value=False, help="Show the steps, do none."
    )(command)
    command = click.option(
        "--deadline",
        type=Seconds(),
        default=3600.0,
        show_default=True,
        metavar="SECONDS",
        callback=limited,
        expose_value=False,
        help="For the task, and for whoever holds the guest's lock.",
    )(command)
    return json_option(command)
