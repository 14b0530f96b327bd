"""The operator's hooks: programs and webhooks that are asked before machines are changed, and told how a run ended.

They are in the operator's own configuration alone, `$NIXHERD_CONFIG` or ~/.config/nixherd/config.toml: nothing that a
fleet's files say starts a program here.

    [hooks]
    before_activate = [["/home/me/bin/may-i", "production"]]
    on_success = ["https://chat.example.org/hooks/0000"]
    on_failure = [["notify-send", "nixherd"], "https://pager.example.org/hooks/0000"]
"""

import ipaddress
import json
import os
import tomllib
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit

from typing_extensions import override

from nixherd.base.errors import DeadlineExceeded, FleetError, Usage
from nixherd.base.process import run
from nixherd.base.reasons import reason
from nixherd.base.terminal import visible_values
from nixherd.fleet.world import believed, distrust

TIMEOUT = 30.0  # seconds for one hook
VARIABLE = "NIXHERD_CONFIG"
BEFORE_ACTIVATE, ON_SUCCESS, ON_FAILURE = MOMENTS = ("before_activate", "on_success", "on_failure")
Target = tuple[str, ...] | str
"""a program and its arguments, or where a webhook is"""


@dataclass(frozen=True)
class Hooks:
    """What is to be asked or told at each of the moments, in its order."""

    targets: Mapping[str, tuple[Target, ...]]

    @classmethod
    def of_operator(cls) -> "Hooks":
        """Those of the operator's configuration; none without one. Usage for one that is wrong, or not theirs alone."""
        path = Path(os.environ.get(VARIABLE) or _usual())
        try:
            with path.open() as file:  # the rights are those of what is read
                status, text = os.fstat(file.fileno()), file.read()
            directory = path.parent.stat()
        except FileNotFoundError:
            if os.environ.get(VARIABLE):
                raise Usage(f"{path}: no such file; {VARIABLE} names the operator's configuration") from None
            return cls({})
        except (OSError, UnicodeDecodeError) as error:
            raise Usage(f"{path}: cannot be read: {error}") from error
        for place, whose in ((path.parent, directory), (path, status)):
            if why := distrust(whose, believed() | {0}):
                remedy = "chown it to yourself, chmod go-w it"
                raise Usage(f"{place}: {why}, who could have programs started here; {remedy}")
        try:
            hooks = cls(_parsed(tomllib.loads(text)))
        except (tomllib.TOMLDecodeError, ValueError) as error:
            raise Usage(f"{path}: {error}") from error
        if status.st_mode & 0o044 and any(isinstance(each, str) for each in hooks.all):
            raise Usage(f"{path}: others may read it, and a webhook's address is a secret; chmod 600 it")
        return hooks

    @property
    def all(self) -> Iterator[Target]:
        return (each for targets in self.targets.values() for each in targets)

    def tell(self, moment: str, document: Mapping[str, Any]) -> list[str]:
        """Give the document, as JSON with its `event`, to each hook of a moment; return what failed, a line each."""
        text = json.dumps(visible_values({"event": moment, **document}), ensure_ascii=False, default=str)
        return [f"{moment}: {name(each)}: {why}" for each in self.targets.get(moment, ()) if (why := _give(each, text))]


def name(target: Target) -> str:
    """What people are told of a hook: a webhook's path is its secret."""
    return f"the webhook at {urlsplit(target).hostname}" if isinstance(target, str) else target[0]


def _usual() -> Path:
    home = os.environ.get("XDG_CONFIG_HOME", "")
    return (Path(home) if home.startswith("/") else Path.home() / ".config") / "nixherd" / "config.toml"


def _parsed(document: Mapping[str, Any]) -> dict[str, tuple[Target, ...]]:
    """ValueError for what is not as the module's own text has it."""
    if unknown := document.keys() - {"hooks"}:
        raise ValueError(f"{min(unknown)} is not known; there is [hooks]")
    hooks = document.get("hooks", {})
    if not isinstance(hooks, dict):
        raise ValueError("hooks is not a table; write [hooks]")
    if unknown := hooks.keys() - {*MOMENTS}:
        raise ValueError(f"hooks.{min(unknown)} is not known; there are {', '.join(MOMENTS)}")
    return {moment: tuple(_targets(moment, value)) for moment, value in hooks.items()}


def _targets(moment: str, value: Any) -> Iterator[Target]:
    if not isinstance(value, list):
        raise ValueError(f'hooks.{moment} is not a list; write [["PROGRAM", "ARGUMENT"], "https://…"]')
    for each in value:
        if isinstance(each, str):
            _require_safe(moment, each)
            yield each
        elif isinstance(each, list) and each and all(isinstance(word, str) and "\0" not in word for word in each):
            program = os.path.expanduser(each[0])  # noqa: PTH111  a word of a command, perhaps without a /
            yield (program, *each[1:])
        else:
            raise ValueError(f'hooks.{moment}: {each!r} is neither ["PROGRAM", "ARGUMENT", …] nor an address')


def _require_safe(moment: str, address: str) -> None:
    """ValueError unless nobody on the way reads what is sent there."""
    try:
        parts = urlsplit(address)
        host = parts.hostname or ""
        _ = parts.port
    except ValueError as error:
        raise ValueError(f"hooks.{moment}: that is not an address: {error}") from None
    if parts.scheme == "https" and host:
        return
    if parts.scheme == "http" and (
        host == "localhost" or (_is_address(host) and ipaddress.ip_address(host).is_loopback)
    ):
        return
    raise ValueError(f"hooks.{moment}: an address begins with https://, or leads to this machine; a program is a list")


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _give(target: Target, text: str) -> str | None:
    """Why a hook failed; None where it did not. Its arguments are not told: they may be secrets."""
    return _post(target, text) if isinstance(target, str) else _start(target, text)


def _start(argv: tuple[str, ...], text: str) -> str | None:
    try:
        done = run(list(argv), input=text, timeout=TIMEOUT, check=False)
    except DeadlineExceeded:
        return f"it did not end within {TIMEOUT:g} s, and was stopped"
    except FleetError as error:
        cause = error.__cause__
        return f"it cannot be started: {cause.strerror if isinstance(cause, OSError) else 'it wrote too much'}"
    if done.status == 0:
        return None
    return f"status {done.status}: {reason(done.stderr or done.stdout, 'it does not say why')}"


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """What is sent to one address is sent to no other."""

    @override
    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def _post(address: str, text: str) -> str | None:
    opener = urllib.request.build_opener(_NoRedirects)
    headers = {"Content-Type": "application/json", "User-Agent": "nixherd"}
    request = urllib.request.Request(address, text.encode(), headers, method="POST")
    try:
        with opener.open(request, timeout=TIMEOUT):
            return None
    except HTTPError as error:
        return f"it answers {error.code}"
    except (OSError, HTTPException, ValueError) as error:
        return str(getattr(error, "reason", "") or error)


Ask = Callable[[Mapping[str, Any]], str | None]


def ask_before_activating() -> Ask:
    """What asks the operator's hooks once whether machines may be changed now: why not, None where they may.

    Usage for a configuration that is wrong: before anything is begun.
    """
    hooks = Hooks.of_operator()
    return lambda document: "; ".join(hooks.tell(BEFORE_ACTIVATE, document)) or None
