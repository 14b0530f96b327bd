"""A fleet's files, in a repository, and files outside of it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nixherd.fleet.load import load_fleet
from tests.conftest import HOSTS_NIX

MakeFleet = Callable[..., Path]


def noted(expression: str) -> tuple[str, str]:
    """An edit that has hosts.nix say something more of `dev`, on its line 7."""
    return ('    hostname = "dev";\n', f'    note = {expression}; hostname = "dev";\n')


def note_of(directory: Path) -> Any:
    return load_fleet(directory).hosts["dev"].extra["note"]


@pytest.fixture
def repository(make_fleet: MakeFleet) -> Path:
    """A fleet in a repository of its own, with something beside it that it is not to see."""
    directory = make_fleet()
    (directory / ".git").mkdir()
    (directory / ".git" / "config").write_text("git's own\n")
    (directory.parent / "outside").mkdir()
    (directory.parent / "outside" / "secret.nix").write_text('"a secret"')
    return directory


def say(directory: Path, expression: str) -> None:
    old, new = noted(expression)
    assert old in HOSTS_NIX
    (directory / "hosts.nix").write_text(HOSTS_NIX.replace(old, new))
