"""docs/troubleshooting.md has messages that the code has."""

import re

import pytest

from nixherd.deploy.report import Outcome
from pages.markdown import ROOT

PAGE = (ROOT / "docs" / "troubleshooting.md").read_text()
SECTIONS = {text.partition("\n")[0]: text for text in PAGE.split("\n## ")[1:]}
ROW = re.compile(r"^\| (`.+?) \| ", re.MULTILINE)
CODE = "\n".join(path.read_text() for path in (ROOT / "nixherd").rglob("*.py"))


def words(section: str) -> list[str]:
    """What the first column of its table quotes."""
    return [each for cell in ROW.findall(section) for each in re.findall("`([^`]+)`", cell)]


@pytest.mark.parametrize("section", [name for name in SECTIONS if name != "Deployments"])
def test_each_message_is_in_the_code(section: str) -> None:
    messages = words(SECTIONS[section])
    assert len(messages) > 2
    assert [message for message in messages if message not in CODE] == []


def test_each_outcome_exists() -> None:
    outcomes = words(SECTIONS["Deployments"])
    assert len(outcomes) > 5
    assert [each for each in outcomes if each not in [*Outcome]] == []
