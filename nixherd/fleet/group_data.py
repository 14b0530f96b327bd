"""What is said for all hosts in pyinfra's group data, for those who need it before pyinfra has an inventory."""

import runpy
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any


def said_for_all(name: str, directories: Iterable[Path]) -> Iterator[Any]:
    """What `all.py` in each of the directories says, in their order; nothing where it says nothing."""
    for said in _said(directories):
        if said.get(name) is not None:
            yield said[name]


def names_for_all(directories: Iterable[Path]) -> Iterator[str]:
    """Every name there."""
    for said in _said(directories):
        yield from (name for name in said if not name.startswith("_"))


def for_all(directories: Iterable[Path]) -> dict[str, Any]:
    """What pyinfra takes from there for every host: later directories come first in rank."""
    return {name: value for said in _said(directories) for name, value in said.items() if not name.startswith("_")}


def names_in(file: Path) -> list[str]:
    """The names that a file of group data sets."""
    return [name for name in runpy.run_path(str(file)) if not name.startswith("_")]


def _said(directories: Iterable[Path]) -> Iterator[dict[str, Any]]:
    for directory in directories:
        if (directory / "all.py").is_file():
            yield runpy.run_path(str(directory / "all.py"))
