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

from nixherd.base.errors import FAILURES
from nixherd.base.files import fleet_root
from nixherd.base.sizes import LONGEST, parse_seconds, parse_size
from nixherd.cli.front import Front

F = TypeVar("F", bound=Callable[..., Any])
VMID = click.IntRange(100, 999_999_999)


class _Text(click.ParamType):  # type: ignore[type-arg]
    """A parameter that `read` makes of its text; its ValueError is wrong usage."""

    def read(self, text: str) -> Any:
        raise NotImplementedError

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return self.read(value) if isinstance(value, str) else value
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Seconds(_Text):
    """A number of seconds, 1 to a month."""

    name = "seconds"

    def read(self, text: str) -> float:
        return parse_seconds(text)


class WholeSeconds(_Text):
    """A whole number of seconds, as servers and machines take them."""

    name = "seconds"

    def __init__(self, least: int, most: int = LONGEST) -> None:
        self.least, self.most = least, most

    def read(self, text: str) -> int:
        seconds = int(text) if re.fullmatch(r"[0-9]{1,15}", text, re.ASCII) else -1
        if not self.least <= seconds <= self.most:
            raise ValueError(f"{text} is not a number of seconds from {self.least} to {self.most}; write one like 60")
        return seconds


class Size(_Text):
    """Bytes, written like 64G."""

    name = "size"

    def read(self, text: str) -> int:
        try:
            return parse_size("" if text.isdecimal() else text)
        except ValueError:
            raise ValueError(f"{text!r} is not a size; write one like 64G") from None


class Pair(_Text):
    """`NAME=VALUE`, as pyinfra takes host data: it ends with a traceback on anything else."""

    name = "pair"

    def read(self, text: str) -> str:
        name, equals, _ = text.partition("=")
        if not (name and equals):
            raise ValueError(f"{text!r} is not NAME=VALUE")
        return text


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
    """List the names of the fleet's guests, from a cache while no file of the fleet changes; raises nothing."""
    from nixherd.cli.guests import names_of
    from nixherd.fleet.load import load_fleet
    from nixherd.fleet.world import look

    try:
        root = fleet_root(directory)
        world = look(root)
        key = hashlib.sha256(repr(sorted(map(repr, world.fingerprint))).encode()).hexdigest()
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        cache = Path(home) / "nixherd" / "completion.json"
        known = json.loads(cache.read_text()) if cache.exists() else {}
        if known.get("key") != key:
            known = {"key": key, "names": sorted(names_of(load_fleet(root, world)))}
            cache.parent.mkdir(parents=True, exist_ok=True)
            cache.write_text(json.dumps(known))
        return list(known["names"])
    except FAILURES:
        return []


guest = click.argument("guest", type=Guest())


data_option = click.option(
    "--data", multiple=True, type=Pair(), metavar="NAME=VALUE", help="Host data, as pyinfra takes it."
)


def standing(name: str, usual: Any = None) -> Callable[[click.Context, click.Parameter, Any], Any]:
    """Make a callback that gives an option which is not set the value in group data, else `usual`."""

    def value_or_standing(ctx: click.Context, param: click.Parameter, value: Any) -> Any:
        value = ctx.ensure_object(Front).standing(name) if value is None else value
        return usual if value is None else value

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


def _front(name: str) -> Callable[[click.Context, click.Parameter, Any], None]:
    """Make a callback that sets an attribute of the Front where the option is given."""

    def assign(ctx: click.Context, param: click.Parameter, value: Any) -> None:
        if value is not None:
            setattr(ctx.ensure_object(Front), name, value)

    return assign


def together(*options: Callable[[F], F]) -> Callable[[F], F]:
    """Make one decorator of several, the first of them outermost."""

    def decorate(command: F) -> F:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


json_option = click.option(
    "--json/--table",
    default=None,
    is_eager=True,
    expose_value=False,
    callback=_front("as_json"),
    help="JSON or a table; by default as stdout is.",
)
dry_run_option = click.option(
    "--dry-run", is_flag=True, expose_value=False, callback=_front("dry_run"), help="Show the steps, do none."
)
# what every command takes that changes a guest
changing = together(
    json_option,
    click.option(
        "--deadline",
        type=Seconds(),
        metavar="SECONDS",
        callback=_front("timeout"),
        expose_value=False,
        help="For the task, and for whoever holds the guest's lock; else group data's task_deadline, else 3600.",
    ),
    dry_run_option,
)
