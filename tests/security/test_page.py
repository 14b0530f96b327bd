"""docs/security.md names tests that are there."""

import re
from pathlib import Path

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "security.md"


def test_every_cell_has_a_test_that_is_there() -> None:
    named = re.findall(r"`([\w/]*test_\w+\.py)::(test_\w+)`", PAGE.read_text())
    assert len(named) > 30
    for file, name in named:
        assert re.search(rf"^def {name}\(", (HERE / file).read_text(), re.MULTILINE), f"{file}::{name}"


def test_every_attacker_has_a_cell_with_a_test() -> None:
    rows = [line.split("|")[1:-1] for line in PAGE.read_text().splitlines() if line.startswith("| ")][1:]
    without = [row[1].strip() for row in rows if len(row) == 4 and "test_" not in row[3]]
    assert without == ["its guests"]  # which nobody can defend against
