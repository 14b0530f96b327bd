"""A Nix that answers by script, and a run that asks it."""

import json
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from nixherd.base.errors import ProcessFailed
from nixherd.base.process import Completed
from nixherd.nix import builder, evaluator
from tests.nixherd.nix.test_commands import described
from tests.nixherd.proxmox.fleets import FLEET
from tests.shared import Shared


def about(*host_ids: str) -> str:
    """What Nix says of these hosts; None of those called `none`."""
    one = json.loads(described())["dev"]
    return json.dumps({host_id: None if host_id == "none" else one for host_id in host_ids})


class FakeNix:
    """Records how it is called; `broken` hosts cannot be evaluated or built, alone or with others."""

    def __init__(self, out: Path, *broken: str) -> None:
        self.out, self.broken, self.calls = out, broken, list[list[str]]()

    def __call__(self, argv: Sequence[str], **options: Any) -> Completed:
        words = list(argv)
        self.calls.append(words)
        if words[-1] == "builtins.attrNames":
            return Completed('["kexec-installer", "other"]', "", 0)
        hosts = re.search(r'fromJSON ("(?:[^"\\]|\\.)*")', words[-1])
        asked: list[str] = json.loads(json.loads(hosts[1])) if hosts else []
        if any(name in word for name in self.broken for word in asked or words[1:]):
            raise ProcessFailed("status 1", 1, "error: broken\n")
        return Completed(about(*asked) if asked else f"{self.out}\n", "", 0)

    def verbs(self) -> list[str]:
        return [next(word for word in call if word in ("eval", "build")) for call in self.calls]


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shared:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return Shared(FLEET, tmp_path / "token")


@pytest.fixture
def nix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., FakeNix]:
    def make(*broken: str) -> FakeNix:
        fake = FakeNix(tmp_path / "out", *broken)
        for each in (builder, evaluator):
            monkeypatch.setattr(each, "run", fake)
        monkeypatch.setattr(evaluator, "_available", lambda: 1 << 40)
        monkeypatch.setattr(os, "cpu_count", lambda: 1)
        return fake

    return make
