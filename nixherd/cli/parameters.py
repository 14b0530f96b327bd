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
from nixherd.errors import FAILURES
from nixherd.files import fleet_root
from nixherd.sizes import LONGEST, parse_seconds, parse_size

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
    from nixherd.cli.guests import names_of
    from nixherd.fleet.load import load_fleet
    from nixherd.fleet.world import look

    try:
        root = fleet_root(directory)
        world = look(root)
        key = hashlib.sha256(repr(sorted(map(repr, world.fingerprint))).encode()).hexdigest()
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        kept = Path(home) / "nixherd" / "completion.json"
        known = json.loads(kept.read_text()) if kept.exists() else {}
        if known.get("key") != key:
            known = {"key": key, "names": sorted(names_of(load_fleet(root, world)))}
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_text(json.dumps(known))
        return list(known["names"])
    except FAILURES:
        return []


guest = click.argument("guest", type=Guest())


class Pair(click.ParamType):  # type: ignore[type-arg]
    """`NAME=VALUE`, as pyinfra takes host data: it ends with a traceback on anything else."""

    name = "pair"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        name, equals, _ = str(value).partition("=")
        if not (name and equals):
            self.fail(f"{value!r} is not NAME=VALUE", param, ctx)
        return str(value)


data_option = click.option(
    "--data", multiple=True, type=Pair(), metavar="NAME=VALUE", help="Host data, as pyinfra takes it."
)


def standing(name: str, usual: Any = None) -> Callable[[click.Context, click.Parameter, Any], Any]:
    """A callback for an option without a default: where it is not given, what group data says, else `usual`."""

    def value_or_standing(ctx: click.Context, param: click.Parameter, value: Any) -> Any:
        said = ctx.ensure_object(Front).standing(name) if value is None else value
        return usual if said is None else said

    return value_or_standing


identity_option = click.option(
    "--identity",
    metavar="FILE",
    callback=standing("age_identity"),
    help="Who decrypts: age identities or an Ed25519 SSH key; else group data's age_identity, else sops' usual file.",
)
commit_option = click.option(
    "--commit/--no-commit",
    default=None,
    callback=standing("commit", usual=True),
    help="One commit of what changed; else as group data's commit says, else one.",
)


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

    def limited(ctx: click.Context, param: click.Parameter, value: float | None) -> None:
        if value is not None:
            ctx.ensure_object(Front).timeout = value

    command = click.option(
        "--dry-run", is_flag=True, callback=planned, expose_value=False, help="Show the steps, do none."
    )(command)
    command = click.option(
        "--deadline",
        type=Seconds(),
        metavar="SECONDS",
        callback=limited,
        expose_value=False,
        help="For the task, and for whoever holds the guest's lock; else group data's task_deadline, else 3600.",
    )(command)
    return json_option(command)
