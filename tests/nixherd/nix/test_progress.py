"""How far a build is, by Nix's own log."""

import json
from typing import Any

import pytest

from nixherd.nix import log
from nixherd.nix.log import HOST_MARK, BuildProgress, EvaluationProgress, readable

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


def test_how_many_bytes_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "PAUSE", 0.0)
    told = BuildProgress()
    told.feed(line(action="start", id=1, type=103))
    told.feed(line(action="result", id=1, type=106, fields=[100, 64 << 20]))
    told.feed(line(action="start", id=2, type=100, fields=["/nix/store/x", "", "ssh://dev"]))
    assert told.feed(line(action="result", id=2, type=105, fields=[1 << 20, 2 << 20, 0, 0])) == "1 MiB of 64 MiB"
    told.feed(line(action="stop", id=2))
    told.feed(line(action="result", id=1, type=105, fields=[1, 9, 0, 0]))
    told.feed(line(action="start", id=3, type=100))
    assert told.feed(line(action="result", id=3, type=105, fields=[3 << 20, 5 << 20, 0, 0])) == (
        "1 of 9 copied, 4 MiB of 64 MiB"
    )


def test_how_many_hosts_are_evaluated() -> None:
    lines: list[str] = []
    progress = EvaluationProgress(3, lines.append)
    one, other = progress.follow(), progress.follow()
    one(line(action="msg", level=0, msg=f"trace: {HOST_MARK}a"))
    other(f"trace: {HOST_MARK}c")
    one("warning: something")
    one(line(action="msg", level=0, msg=f"trace: {HOST_MARK}b"))
    progress.take(["a", "b"])
    assert lines == [
        "0 of 3 hosts evaluated, at a",
        "0 of 3 hosts evaluated, at c",
        "1 of 3 hosts evaluated, at b",
        "2 of 3 hosts evaluated",
    ]


def test_what_a_line_says() -> None:
    assert readable(line(action="msg", level=1, msg="\x1b[31mwarning\x1b[0m: x")) == "warning: x"
    assert readable(line(action="start", id=1, text="copying path")) == "copying path"
    assert readable(line(action="stop", id=1)) == readable("@nix {") == ""
    assert readable("plain") == "plain"
