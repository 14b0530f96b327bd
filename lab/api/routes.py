"""The routes served: a function per method and path of the API tree."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from lab.api.emulator import Emulator
    from lab.api.permissions import User


@dataclass
class Call:
    """One request that has passed authentication, permission and parameter checks.

    `params` holds the parameters of URI, query and body with their types: int for integers and booleans, list where the
    schema says array, otherwise str. `nulls` were given as JSON's null. `files` holds uploaded content by name.
    """

    emulator: "Emulator"
    user: "User"
    method: str
    path: str
    params: dict[str, Any]
    nulls: frozenset[str] = frozenset()
    files: dict[str, bytes] = field(default_factory=dict)

    @property
    def vmid(self) -> int:
        """The VMID in the URI."""
        return int(self.params["vmid"])

    @property
    def node(self) -> str:
        """The node in the URI."""
        return str(self.params["node"])


@dataclass
class Page:
    """Data whose answer also contains the total number of rows."""

    data: Any
    total: int


@dataclass
class RawBody:
    """An answer that is not JSON."""

    content: bytes
    headers: dict[str, str]


Handler = Callable[[Call], Any]
H = TypeVar("H", bound=Handler)

# Handlers by `METHOD /path/{name}`, as the documentation writes paths.
REGISTRY: dict[str, Handler] = {}
_PATTERNS: list[tuple[re.Pattern[str], str]] = []
# Names whose value may contain slashes.
_GREEDY = {"volume"}


def route(method: str, path: str) -> Callable[[H], H]:
    """Serve `path`, in which `{name}` stands for one segment."""

    def register(handler: H) -> H:
        key = f"{method} {path}"
        REGISTRY[key] = handler
        pattern = re.sub(r"\{(\w+)\}", lambda m: f"(?P<{m[1]}>{'.+' if m[1] in _GREEDY else '[^/]+'})", path)
        _PATTERNS.append((re.compile(f"{method} {pattern}"), key))
        return handler

    return register


def paths() -> set[str]:
    """List the paths served, in the documentation's notation."""
    return {key.partition(" ")[2] for key in REGISTRY}


def find(method: str, path: str) -> tuple[str, dict[str, str]] | None:
    """Return the registry's key for a request and the parameters in the URI; None if no route matches."""
    exact = f"{method} {path}"
    if exact in REGISTRY:
        return exact, {}
    for pattern, key in _PATTERNS:
        match = pattern.fullmatch(exact)
        if match:
            return key, match.groupdict()
    return None
