"""How far a build is, by Nix's own log."""

import json
from typing import Any

import pytest

from nixherd.nix import log
from nixherd.nix.log import BuildProgress

DRV = f"/nix/store/{'a' * 32}-nginx-1.27.drv"


def line(**entry: Any) -> str:
    return f"@nix {json.dumps(entry)}"


def test_what_builds_and_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "PAUSE", 0.0)
    told = BuildProgress()
    assert told.feed("warning: something") is None
    assert told.feed("@nix {broken") is None
    told.feed(line(action="start", id=1, type=104))
    told.feed(line(action="start", id=2, type=103))
    assert told.feed(line(action="result", id=1, type=105, fields=[0, 3, 0, 0])) == "0 of 3 built"
    assert told.feed(line(action="start", id=3, type=105, fields=[DRV])) == "0 of 3 built, building nginx-1.27"
    assert told.feed(line(action="result", id=3, type=101, fields=["compiling"])) is None
    assert told.feed(line(action="result", id=2, type=105, fields=[1, 5, 0, 0])) == (
        "0 of 3 built, 1 of 5 copied, building nginx-1.27"
    )
    told.feed(line(action="stop", id=3))
    assert told.feed(line(action="result", id=1, type=105, fields=[1, 3, 0, 0])) == "1 of 3 built, 1 of 5 copied"
    assert told.log == ["compiling"]


def test_people_are_told_now_and_then() -> None:
    told = BuildProgress()
    lines = [line(action="start", id=1, type=104)]
    lines += [line(action="result", id=1, type=105, fields=[number, 1000, 0, 0]) for number in range(1000)]
    assert len([said for said in map(told.feed, lines) if said]) == 1
