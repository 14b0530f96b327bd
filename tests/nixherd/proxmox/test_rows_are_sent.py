"""Every row of the guard's table is sent by a step or a call that the product uses: no right that nobody needs."""

import ast
import inspect
import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from nixherd.base.errors import ApiError
from nixherd.fleet.models import GuestType
from nixherd.proxmox.answers import Upid
from nixherd.proxmox.calls import Agent, Guests, Storages
from nixherd.proxmox.guard.routes import ROUTES, find
from nixherd.proxmox.wire import Tasks, Upload
from tests.nixherd.proxmox.test_proxmox_steps import CASES, UPID

ROOT = Path(__file__).parents[3]
CALLS = (Guests, Storages, Tasks, Agent)
OF_A_CLIENT = {"change", "making", "recount"}  # of no request of their own
ARGUMENTS: Mapping[str, Any] = {
    **{"node": "prom", "vmid": 110, "upid": Upid.parse(UPID), "storage": "local", "user": "nixherd@pve", "pool": "lab"},
    **{"name": "clean", "archive": "local:backup/vzdump-qemu-110-2026_01_02-03_04_05.vma.zst", "values": {"cores": 2}},
    **{"url": "https://example.org/x.qcow2", "file": Path("x.qcow2"), "filename": "nixherd-9002-01.qcow2"},
    **{"sha256": "0" * 64, "path": "/etc/os-release", "argv": ["/bin/true"]},
    # what may be left out
    **{"current": True, "snapshot": "clean", "content": "images", "limit": 5, "errors": True, "input": "x"},
}
ANSWER = {"pid": 1, "exited": 1}  # of the agent: what it runs has ended


class Recorder(*CALLS):  # type: ignore[misc]  # the four, as Client has them
    """Notes what the calls send, and answers what few of them can read."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[tuple[str, str, set[str]]] = []
        self.token_id = "nixherd@pve!lab"

    def _ask(self, method: str, path: Sequence[object], parameters: Mapping[str, object] | Upload) -> Any:
        form = {**parameters.fields, "filename": ""} if isinstance(parameters, Upload) else parameters
        names = {key for key, value in form.items() if value is not None}
        self.sent.append((method, "/" + "/".join(map(str, path)), names))
        return dict(ANSWER)


@cache
def used() -> tuple[set[str], set[str]]:
    """What the product uses of a client (`client.status`, `self.is_free` in the calls), and all that it calls."""
    attributes, called = set[str](), set[str]()
    places = [ROOT / name for name in ("nixherd", "operations", "facts", "deploys")]
    for file in itertools.chain.from_iterable(place.rglob("*.py") for place in places):
        owners = {"client", "guarded", *(("self",) if file.parent.name == "proxmox" else ())}
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Attribute) and _last(node.value) in owners:
                attributes.add(node.attr)
            elif isinstance(node, ast.Call):
                called.add(_last(node.func))
    return attributes - OF_A_CLIENT, called


def _last(node: ast.AST) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def of_calls() -> Iterator[tuple[str, str, set[str]]]:
    """What the calls send that the product uses, for both kinds of guests, with all that they can say and without."""
    attributes, _ = used()
    for name, method in inspect.getmembers(Recorder, inspect.isfunction):
        if name.startswith("_") or name not in attributes:
            continue
        parameters = {key: each for key, each in inspect.signature(method).parameters.items() if key != "self"}
        needed = {key: ARGUMENTS[key] for key, each in parameters.items() if each.default is each.empty}
        possible = {key: ARGUMENTS[key] for key in parameters if key in ARGUMENTS}
        for type, given in itertools.product(GuestType, (needed, possible)):
            recorder = Recorder()
            with suppress(ApiError):  # it cannot read the answer
                method(recorder, **given, **({"type": type} if parameters.get("type") is not None else {}))
            yield from recorder.sent


def of_steps() -> Iterator[tuple[str, str]]:
    _, called = used()
    for step in CASES:
        if type(step).__name__ in called and (route := step.requests.get(step.type)):
            yield route.method, "/" + "/".join(map(str, route.filled(step.names())))


def test_every_row_is_sent() -> None:
    requests = [(method, path) for method, path, _ in of_calls()] + list(of_steps())
    found = [find(*request) for request in requests]
    sent = {(each.route.method, each.route.path) for each in found if each}
    assert [f"{route.method} {route.path}" for route in ROUTES if (route.method, route.path) not in sent] == []


def test_every_parameter_of_a_look_is_sent() -> None:
    sent: dict[str, set[str]] = {}
    for method, path, names in of_calls():
        if (found := find(method, path)) and method == "GET":
            sent.setdefault(found.route.path, set()).update(names)
    looks = {route.path: set(route.parameters) for route in ROUTES if route.method == "GET"}
    assert {path: more for path, listed in looks.items() if (more := listed - sent.get(path, set()))} == {}


def test_every_call_has_a_row_and_somebody_who_uses_it() -> None:
    calls = {name for name, _ in inspect.getmembers(Recorder, inspect.isfunction) if not name.startswith("_")}
    assert calls - OF_A_CLIENT - used()[0] == set()
    assert [request for *request, _ in of_calls() if find(*request) is None] == []
