"""Whatever a server, a machine or Nix answers is a value or an error of that call."""

import contextlib
import importlib
import inspect
import itertools
import json
import pkgutil
import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyinfra.api.exceptions import FactProcessError

from nixherd.base.errors import ApiError, DeadlineExceeded, FleetError
from nixherd.deploy import protocol as activation
from nixherd.facts.base import Fact
from nixherd.fleet.models import GuestType
from nixherd.nix.log import BuildProgress
from nixherd.proxmox import wire
from nixherd.proxmox.answers import Upid
from nixherd.proxmox.calls import Agent, Guests, Storages
from nixherd.proxmox.steps import Start
from nixherd.proxmox.wire import Tasks
from tests.nixherd.cli.conftest import fleet  # noqa: F401  (fixture)
from tests.nixherd.proxmox.conftest import Emulator, dev, emulator, started  # noqa: F401  (fixtures)
from tests.properties import examples
from tests.security.one_thing.conftest import ROOT

NAMES = ("state", "id", "who", "why", "left", "failed", "current", "version", "log", "refused", "protocol")
KEYS = (
    "vmid type node status data result name upid t pid exited storage volid release version time user starttime key "
    "map pending hardware-address ip-addresses content"
)
JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(["1", "UPID:a"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(KEYS.split()) | st.text(max_size=3), inner, max_size=6)
    ),
    max_leaves=12,
)
GIVEN: dict[str, Any] = {
    "node": "prom", "vmid": 110, "user": "nixherd@pve", "name": "lab", "storage": "nvmeprom", "path": "/x",
    "argv": ["x"],
    "archive": "local:backup/x", "volid": "local:backup/x", "newid": 111, "source": 9002, "values": {}, "disk": "scsi0",
    "size": "8G", "target": "prom", "pool": "nixherd", "vmids": [110], "delete": True, "description": "",
    "upid": Upid.parse("UPID:a:1:2:3:t:i:u@p:"), "file": Path(__file__), "filename": "x.raw", "url": "https://x/y",
    "sha256": "0", "route": Start.requests[GuestType.QEMU], "names": {"node": "prom", "vmid": 110}, "parameters": {},
}  # fmt: skip


class Answering(Guests, Storages, Tasks, Agent):
    """The calls over answers that are made up."""

    def __init__(self, answers: Iterator[Any]) -> None:
        super().__init__()
        self._answers = answers

    def _ask(self, method: str, path: Sequence[object], parameters: object) -> Any:
        return next(self._answers)


CALLS = sorted(name for name, each in inspect.getmembers(Answering, inspect.isfunction) if not name.startswith("_"))


def read_all(value: Any) -> None:
    """Look at everything that an answer has, as those who asked do: also what is worked out only then."""
    for each in value if isinstance(value, tuple) else (value,):
        repr(each)
        json.dumps(each, default=str)
        for name, attribute in inspect.getmembers(type(each)):
            if isinstance(attribute, (property, cached_property)) and type(each).__module__.startswith("nixherd."):
                getattr(each, name)


@pytest.mark.parametrize("name", CALLS)
@given(answers=st.lists(JUNK, min_size=1, max_size=3))
@examples(60)
def test_whatever_the_server_answers_is_an_error_of_that_call(name: str, answers: list[Any]) -> None:
    client = Answering(itertools.cycle(answers))
    method = getattr(client, name)
    parameters = inspect.signature(method).parameters.values()
    arguments = {each.name: GIVEN[each.name] for each in parameters if each.default is inspect.Parameter.empty}
    try:
        read_all(method(**arguments, **({"timeout": 0} if name == "agent_exec" else {})))
    except (ApiError, DeadlineExceeded) as error:
        named = re.search(r"(GET|POST|PUT|DELETE) /|UPID|in the guest: not done", str(error))
        if not named:
            raise


@given(st.binary(max_size=60) | JUNK.map(lambda value: json.dumps(value).encode()) | st.just(b"[" * 100_000))
def test_whatever_is_on_the_wire_is_an_error(body: bytes) -> None:
    with contextlib.suppress(ApiError):
        wire.data_of("GET", "/x", body)
    for status in (400, 500, 595, 302):
        assert isinstance(wire.error_of("GET", "/x", status, "", body, "u@pve!t"), ApiError)


@given(st.text(max_size=200) | st.lists(st.tuples(st.sampled_from(NAMES), st.text(max_size=12))).map(
    lambda rows: "\n".join(f"{key}={value}" for key, value in rows)
))  # fmt: skip
def test_whatever_a_machine_says_is_a_standing_or_an_error(text: str) -> None:
    with contextlib.suppress(FleetError):
        activation.parse(text)


FACTS = [
    each
    for module in pkgutil.iter_modules([str(ROOT / "facts")])
    for each in vars(importlib.import_module(f"nixherd.facts.{module.name}")).values()
    if isinstance(each, type) and issubclass(each, Fact) and "abstract" not in vars(each)
]


@given(
    st.lists(
        st.text(max_size=30) | st.sampled_from(["current=x", "1 2 3", "{}", "[]", "null", "a-1-link /x y"]), max_size=6
    )
)
def test_whatever_a_machine_says_is_a_fact_or_an_error_of_it(lines: list[str]) -> None:
    assert len(FACTS) > 20
    for each in FACTS:
        with contextlib.suppress(FactProcessError):
            each().process(lines)


@given(st.lists(st.text(max_size=40) | JUNK.map(json.dumps).map(lambda text: f"@nix {text}"), max_size=8))
def test_whatever_nix_logs_is_progress_or_nothing(lines: list[str]) -> None:
    progress = BuildProgress()
    for line in lines:
        progress.feed(line)
