"""Checks that a machine has to pass before its new system is kept. Pure.

They come from a host's entry in hosts.nix (`healthChecks`) and from the NixOS option `nixherd.healthChecks`, both
sets by name: `{ web = { http = "http://localhost:8080/"; status = 200; }; db.tcp = 5432; jobs.unit = "cron.service";
own = { command = "test -e /run/ready"; timeout = 60; }; }`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from nixherd.errors import Usage

KINDS = ("unit", "command", "tcp", "http")
_OPTIONS = ("timeout", "status")
TIMEOUT = 30  # seconds in which a check has to pass
_LONGEST = 3600


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
    """The checks of a host; `where` says in messages where they were written. Usage when one cannot be meant."""
    if checks is None:
        return ()
    if not isinstance(checks, Mapping):
        raise Usage(f"{where}: is no set of checks by name")
    return tuple(_check(f"{where}.{name}", str(name), about) for name, about in sorted(checks.items()))


def _check(where: str, name: str, about: Any) -> Check:
    said = {key: value for key, value in about.items() if value is not None} if isinstance(about, Mapping) else {}
    kinds = [key for key in said if key in KINDS]
    if unknown := [key for key in said if key not in (*KINDS, *_OPTIONS)]:
        raise Usage(f"{where}.{unknown[0]}: no such check; there are {', '.join(KINDS)}, timeout and status")
    if len(kinds) != 1:
        raise Usage(f"{where}: one of {', '.join(KINDS)} says what is checked")
    [kind] = kinds
    value, timeout, status = said[kind], said.get("timeout", TIMEOUT), said.get("status", 200)
    if isinstance(timeout, bool) or not isinstance(timeout, int) or not 1 <= timeout <= _LONGEST:
        raise Usage(f"{where}.timeout={timeout} is no number of seconds from 1 to {_LONGEST}")
    if isinstance(status, bool) or not isinstance(status, int) or not 100 <= status <= 599:
        raise Usage(f"{where}.status={status} is no status of HTTP")
    return Check(name, kind, _value(f"{where}.{kind}", kind, value), timeout, status)


def _value(where: str, kind: str, value: Any) -> str:
    if kind == "tcp" and isinstance(value, int) and not isinstance(value, bool):
        value = f"localhost:{value}"
    if not isinstance(value, str) or not value or "\0" in value:
        raise Usage(f"{where}={value!r} is no text")
    if kind == "tcp":
        port = value.rpartition(":")[2]
        if not port.isdecimal() or not 0 < int(port) < 65536 or not value.rpartition(":")[0]:
            raise Usage(f"{where}={value} is neither a port nor HOST:PORT")
    if kind == "http" and not value.startswith("http://"):
        raise Usage(f"{where}={value} is no http:// URL; what needs TLS can be asked by a command")
    if kind == "unit" and value.startswith("-"):
        raise Usage(f"{where}={value} is no unit")
    return value
