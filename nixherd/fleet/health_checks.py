"""Checks that a machine has to pass before its new system is kept. Pure.

They come from a host's entry in hosts.nix (`healthChecks`) and from the NixOS option `nixherd.healthChecks`, both
sets by name: `{ web = { http = "http://localhost:8080/"; status = 200; }; db.tcp = 5432; jobs.unit = "cron.service";
own = { command = "test -e /run/ready"; timeout = 60; }; }`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from nixherd.base.errors import Usage

KINDS = ("unit", "command", "tcp", "http")
_OPTIONS = ("timeout", "status")
TIMEOUT = 30  # seconds in which a check has to pass
_LONGEST = 3600


class NoCheck(Usage):
    """What is written is not a check. `at` is the attribute below the set (`.web.tcp`), `what` is wrong with it."""

    def __init__(self, at: str, what: str, remedy: str) -> None:
        self.at, self.what, self.remedy = at, what, remedy
        super().__init__(f"{at}: {what}; {remedy}")


@dataclass(frozen=True)
class Check:
    """One check, which has to pass within `timeout` seconds. `value` is a unit, a shell text, HOST:PORT or a URL, the
    last two as seen from the machine itself; `status` is what the URL has to answer with."""

    name: str
    kind: str
    value: str
    timeout: int = TIMEOUT
    status: int = 200

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of a `tcp` or `http` check."""
        if self.kind == "http":
            parts = urlsplit(self.value)
            return parts.hostname or "localhost", parts.port or 80
        host, _, port = self.value.rpartition(":")
        return host.strip("[]") or "localhost", int(port)

    def __str__(self) -> str:
        return f"{self.name} ({self.kind} {self.value})"


def parse(where: str, checks: Any) -> tuple[Check, ...]:
    """The checks of a host; `where` says in messages where they were written. NoCheck when one cannot be meant."""
    if checks is None:
        return ()
    if not isinstance(checks, Mapping):
        remedy = "write healthChecks.NAME.unit = …, .command, .tcp or .http"
        raise NoCheck(where, "is not a set of checks by name", remedy)
    return tuple(_check(f"{where}.{_shown(name)}", name, values) for name, values in sorted(checks.items()))


def _check(where: str, name: str, values: Any) -> Check:
    if not name.isprintable():
        raise NoCheck(where, "is not a name for a check", "write one word")
    given = {key: value for key, value in values.items() if value is not None} if isinstance(values, Mapping) else {}
    kinds = [key for key in given if key in KINDS]
    there_are = f"there are {', '.join(KINDS)}, timeout and status"
    if unknown := [key for key in given if key not in (*KINDS, *_OPTIONS)]:
        raise NoCheck(f"{where}.{_shown(unknown[0])}", "no such check", there_are)
    if len(kinds) != 1:
        raise NoCheck(where, "does not say what is checked", f"write one of {', '.join(KINDS)}")
    [kind] = kinds
    value, timeout, status = given[kind], given.get("timeout", TIMEOUT), given.get("status", 200)
    if isinstance(timeout, bool) or not isinstance(timeout, int) or not 1 <= timeout <= _LONGEST:
        raise NoCheck(f"{where}.timeout", f"{timeout!r} is not a number of seconds", f"write one from 1 to {_LONGEST}")
    if isinstance(status, bool) or not isinstance(status, int) or not 100 <= status <= 599:
        raise NoCheck(f"{where}.status", f"{status!r} is not a status of HTTP", "write one from 100 to 599")
    return Check(name, kind, _value(f"{where}.{kind}", kind, value), timeout, status)


def _shown(name: str) -> str:
    return name if name.isprintable() else repr(name)


def _value(where: str, kind: str, value: Any) -> str:
    if kind == "tcp" and isinstance(value, int) and not isinstance(value, bool):
        value = f"localhost:{value}"
    if type(value) is not str or not value or "\0" in value:  # a path of Nix is a kind of str
        raise NoCheck(where, f"{value!r} is not text", "write a string in quotes that is not empty")
    if kind == "tcp" and not _is_target(value):
        raise NoCheck(where, f"{value!r} is neither a port nor HOST:PORT", "write one such as 5432")
    if kind == "http" and not _is_url(value):
        remedy = "write one such as http://localhost:8080/; what needs TLS can be asked by a command"
        raise NoCheck(where, f"{value!r} is not an http:// URL", remedy)
    if kind == "unit" and (value.startswith("-") or not value.isprintable() or " " in value):
        raise NoCheck(where, f"{value!r} is not a unit", "write one such as cron.service")
    return value


def _is_target(value: str) -> bool:
    host, _, port = value.rpartition(":")
    number = port.isascii() and port.isdecimal() and len(port) <= 5 and 0 < int(port) < 65536
    return bool(host) and value.isprintable() and " " not in value and number


def _is_url(value: str) -> bool:
    if not value.startswith("http://") or not value.isprintable() or " " in value:
        return False
    try:
        parts = urlsplit(value)
        return parts.port != 0  # it raises for what is none
    except ValueError:
        return False
