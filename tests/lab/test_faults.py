"""Every fault of the lab is described in docs/lab.md."""

import re
from pathlib import Path

from lab.broken import faults
from lab.cli import switchable

PAGE = (Path(__file__).parents[2] / "docs/lab.md").read_text()


def table(column: str) -> dict[str, str]:
    """Return the rows of the table with this second column, by name."""
    rows = PAGE.split(f"| fault | {column} |\n|---|---|\n")[1].split("\n\n")[0]
    return dict(re.findall(r"^\| `([\w-]+)` \| (.+) \|$", rows, re.MULTILINE))


def test_faults_of_api_and_machines() -> None:
    assert set(table("effect")) == set(switchable())


def test_faults_of_a_next_system() -> None:
    assert table("the next system") == {name: text.removesuffix(".") for name, text in faults().items()}
