"""Hosts and guests of a fleet, and what may be misspelt in them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from nixherd.base.errors import Finding
from tests.fuzz.names import fleet
from tests.judged import find

MakeFleet = Callable[..., Path]
Edit = tuple[str, str]
ROOT = Path(__file__).parents[3]


@dataclass(frozen=True)
class Case:
    """An attribute put into a small sound fleet, at a path of its two files; `instead` of another one."""

    path: tuple[str, ...]
    name: str
    value: Any = True
    instead: str | None = None

    def findings(self) -> list[Finding]:
        files = fleet()
        files["definitions"]["vmidRanges"] = {"production": {"start": 100, "end": 199}}
        target: Any = files
        for part in self.path:
            target = target[part]
        target[self.name] = target.pop(self.instead) if self.instead else self.value
        return find(files["hosts"], files["definitions"])


def host(name: str, value: Any = True, instead: str | None = None) -> Case:
    return Case(("hosts", "dev"), name, value, instead)


def imported(name: str, value: Any = True) -> Case:
    return Case(("definitions", "imported", "doc"), name, value)


def proxmox(name: str, value: Any = True) -> Case:
    return Case(("definitions", "proxmox"), name, value)


def template(name: str, value: Any = True) -> Case:
    return Case(("definitions", "template"), name, value)


# What people call their own, in Nix, and the first names of the issue: by the whole way from the files.
def on_host(text: str) -> Edit:
    return ('hostname = "dev";', f'hostname = "dev"; {text}')


def on_guest(text: str) -> Edit:
    return ("vmid = 110;", f"vmid = 110; {text}")


@pytest.fixture
def warned(make_fleet: MakeFleet, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    nobody = ("sudoPasswordless = true;", 'sudoPasswordless = true; addresses = [ "127.0.0.9" ];')
    directory = make_fleet(on_host("canery = true;"), nobody)
    monkeypatch.setenv("FLEET", str(directory))
    monkeypatch.setenv("HOME", str(tmp_path))
    return directory
