"""Nothing that names a protected guest reaches the wire, whatever it looks like; what may pass does."""

import contextlib
import inspect
import json
import pkgutil
import random
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import nixherd
from nixherd.base.errors import ApiError, Refused
from nixherd.fleet import validate
from nixherd.proxmox import client as client_module
from nixherd.proxmox.client import Client, _GuardedSession, connect
from nixherd.proxmox.guard.policy import Policy, PolicySource
from tests.fuzz.names import mistake, names_are_judged, near_names
from tests.fuzz.requests import GOOD, MANAGED, PLACES, TEMPLATE, Request, documented, named, systematic
from tests.fuzz.run import Wire, _all, fuzz, positive_control
from tests.nixherd.proxmox.conftest import Emulator, running, state
from tests.nixherd.proxmox.fleets import FLEET
from tests.properties import examples

pytestmark = [pytest.mark.process, pytest.mark.xdist_group("fuzz")]

BUDGET = 8000
NAMES = 2000


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    with running(tmp_path_factory.mktemp("fuzz"), state()) as found:
        yield found


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "REFUSED_PAUSES", ())


def test_the_log_would_show_a_request_past_the_guard(emulator: Emulator) -> None:
    assert positive_control(emulator)


def test_there_is_something_to_ask() -> None:
    methods = documented()
    assert len(methods) > 40
    assert ("POST", "/nodes/{node}/qemu/{vmid}/status/stop") in methods
    assert sum(1 for _ in systematic()) > 5000


@pytest.mark.slow
def test_a_budget_of_requests(emulator: Emulator) -> None:
    outcome = fuzz(emulator, _all(random.Random(7), BUDGET))
    assert outcome.mistakes == []
    assert outcome.requests == BUDGET
    assert len(outcome.sent) > len(GOOD)
    print(f"fuzz: {outcome.requests} requests, {len(outcome.sent)} on the wire")


# Names that are near one that protects


def test_a_budget_of_near_names() -> None:
    assert names_are_judged()
    assert [output for named in near_names(random.Random(7), NAMES) if (output := mistake(named))] == []


def test_a_near_name_that_loads_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validate, "judge", lambda place, name, value: None)
    wrong = [output for named in near_names(random.Random(7), NAMES // 10) if (output := mistake(named))]
    assert any("readonly protects nothing and loads silently" in output for output in wrong)
    assert len(wrong) > NAMES // 30


# Encodings that nobody thought of

_numbers = st.one_of(
    st.sampled_from(["104", "0110", "110.0", "1e2", "٠١١", "110 ", "+110", "9002", "105", "109"]),
    st.integers(-5, 10**10).map(str),
)
_pieces = st.one_of(
    st.sampled_from(["nodes", "prom", "qemu", "lxc", "110", "104", "..", ".", "", "%2e%2e", "%2f", "config", "status",
                     "stop", "start", "clone", "snapshot", "agent", "exec", "storage", "content", "cluster", "vzdump"]),
    _numbers,
    st.text(max_size=6),
)  # fmt: skip
_values = st.recursive(
    st.one_of(_numbers, st.text(max_size=12), st.integers(), st.floats(allow_nan=True), st.booleans(), st.none()),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=4,
)
_keys = st.one_of(st.sampled_from([key for key, _ in PLACES]), st.text(min_size=1, max_size=8))


@examples(300)
@given(
    method=st.sampled_from(["POST", "PUT", "DELETE", "PATCH", "GET", "post", "TRACE"]),
    pieces=st.lists(_pieces, max_size=8),
    params=st.dictionaries(_keys, _values, max_size=3),
)
def test_whatever_is_made_up(emulator: Emulator, method: str, pieces: list[str], params: dict[str, Any]) -> None:
    wire = Wire(emulator, FLEET)
    wire.logged()
    request = Request(method, "/" + "/".join(pieces), params)
    wire.send(request)
    rows = wire.logged()
    if not rows or all(row["method"] == "GET" for row in rows):
        return  # nothing but looking
    assert named(request) <= {str(MANAGED), str(TEMPLATE)}, request


@pytest.mark.parametrize("kind", ["application/json", "multipart/form-data", "text/plain", ""])
def test_only_forms_are_sent(emulator: Emulator, kind: str) -> None:
    """A body that the guard does not read is not sent, whatever it names."""
    session = _GuardedSession(emulator.endpoint, Policy.from_fleet(FLEET), emulator.token)
    import requests

    wire = Wire(emulator, FLEET)
    wire.logged()
    for vmid in (104, 110):  # the latter would pass as a form
        url = f"{wire.base}/nodes/prom/qemu/{MANAGED}/clone"
        body = json.dumps({"newid": vmid})
        prepared = requests.Request("POST", url, data=body, headers={"Content-Type": kind}).prepare()
        with pytest.raises(Refused):
            session.send(prepared)
    assert wire.logged() == []


# No way around


def _modules() -> Iterator[types.ModuleType]:
    for found in pkgutil.walk_packages(nixherd.__path__, "nixherd."):
        yield __import__(found.name, fromlist=["x"])


def test_no_public_way_to_a_client_without_a_policy(emulator: Emulator) -> None:
    """Whatever gives a Client takes a policy, or a session that has one."""
    makers: set[str] = set()
    for module in _modules():
        for name, value in vars(module).items():
            if name.startswith("_") or getattr(value, "__module__", None) != module.__name__:
                continue
            members = vars(value).items() if inspect.isclass(value) else [("", value)]
            for member, function in members:
                function = getattr(function, "fget", None) or getattr(function, "func", None) or function
                if not inspect.isfunction(function) or member.startswith("_"):
                    continue
                if inspect.signature(function).return_annotation in (Client, "Client"):
                    makers.add(f"{module.__name__}.{name}{'.' + member if member else ''}")
    assert makers == {
        "nixherd.proxmox.client.connect",
        "nixherd.proxmox.hypervisor.Hypervisor.client",
        "nixherd.proxmox.hypervisor.Hypervisor.guarded",
        "nixherd.cli.front.Front.client",
        "nixherd.cli.init_guests.Hypervisor.connected",
    }
    assert list(inspect.signature(connect).parameters) == ["endpoint", "policy", "token"]
    for nothing in (None, lambda: None, object(), {}):
        with pytest.raises(TypeError):
            Client(emulator.endpoint, nothing, emulator.token)  # type: ignore[arg-type]
    assert isinstance(Policy.from_fleet(FLEET), Policy)
    assert not isinstance(Policy.from_fleet(FLEET), PolicySource)


def test_neither_the_session_nor_proxmoxers_object_leaves_a_client(emulator: Emulator) -> None:
    found = connect(emulator.endpoint, Policy.from_fleet(FLEET), emulator.token)
    for name in dir(found):
        if name.startswith("_"):
            continue
        value = getattr(found, name)
        assert "proxmoxer" not in type(value).__module__, name
        assert "requests" not in type(value).__module__, name


def importing(*names: str) -> list[str]:
    """The library's modules that import one of these."""
    root = Path(nixherd.__file__).parent
    beginnings = tuple(f"{word} {name}" for name in names for word in ("import", "from"))
    return [
        file.relative_to(root).as_posix()
        for file in sorted(root.rglob("*.py"))
        if any(line.startswith(beginnings) for line in file.read_text().splitlines())
    ]


def test_nobody_else_speaks_http() -> None:
    """The library has one module that imports what speaks it to a hypervisor."""
    assert importing("requests", "proxmoxer") == ["proxmox/client.py"]
    # webhooks: addresses of the operator's own file, given a document and no token
    assert importing("urllib.request") == ["deploy/hooks.py"]
    # a machine's own services are asked through its SSH connection; `nixherd serve` answers, and asks nobody
    assert importing("http") == ["deploy/health.py", "deploy/hooks.py", "overview/serve.py"]
    # SSH's sockets and tunnels, a search of the network, a pair that ends in a program of ours, names that are looked
    # up, and addresses that may be ours
    connection = ["link/client.py", "pyinfra_glue/engine.py"]
    names = ["proxmox/hypervisor.py", "ssh/said.py", "ssh/ssh_config.py"]
    listens = ["overview/serve.py"]
    assert importing("socket") == sorted(
        [*connection, *names, *listens, "locate/keyscan.py", "locate/proof.py", "base/process.py", "trust/hops.py"]
    )


def test_a_source_of_policies_is_asked_before_each_change(emulator: Emulator) -> None:
    class Source:
        calls = 0

        def policy(self) -> Policy:
            Source.calls += 1
            if Source.calls > 2:
                raise Refused("the definitions cannot be read; refusing any change")
            return Policy.from_fleet(FLEET)

    found = connect(emulator.endpoint, Source(), emulator.token)
    found.version()
    found.nodes()
    assert Source.calls == 1
    with contextlib.suppress(ApiError):  # there may be no such guest; it was sent
        found.set_config("prom", 110, {"cores": 2})
    assert Source.calls == 2
    before = len(emulator.requests())
    with pytest.raises(Refused, match="cannot be read"):
        found.set_config("prom", 110, {"cores": 2})
    assert len(emulator.requests()) == before
