"""CONTRIBUTING.md names files that exist, and the changelog the version that is being made."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "CONTRIBUTING.md").read_text()
PATH = re.compile(r"`((?:nixherd|operations|facts|deploys|lab|bench|fleet|tests|docs)/[\w./-]*)`")


def test_files_that_are_named_exist() -> None:
    paths = PATH.findall(PAGE)
    assert len(paths) > 30
    assert [path for path in paths if not (ROOT / path).exists() and not re.search("NAME|NOUN|CASE", path)] == []


def test_the_chains_name_functions_that_exist() -> None:
    section = PAGE.split("## From a row to its effect\n")[1].split("\n## ")[0]
    named = set(re.findall(r"`([A-Za-z_]+(?:\.[a-z_]+)?)`", section))
    assert len(named) > 50
    texts = "\n".join(path.read_text() for room in ("nixherd", "operations") for path in (ROOT / room).rglob("*.py"))
    defined = set(re.findall(r"(?:def|class) (\w+)|^(\w+)(?:: .*)? = ", texts, re.MULTILINE))
    known = {name for names in defined for name in names} | {path.stem for path in (ROOT / "operations").rglob("*.py")}
    known |= {name.lower() for name in known} | {"plan", "make"}  # an operation is called as its verb's class
    assert [name for name in sorted(named) if not set(name.split(".")) <= known] == []


def test_the_rules_name_what_modules_have() -> None:
    section = PAGE.split("## How code reads here\n")[1].split("\n## ")[0]
    named = re.findall(r"`([a-z_]+)\.(\w+)`", section)
    assert len(named) >= 2
    for module, name in named:
        texts = [path.read_text() for path in (ROOT / "nixherd").rglob(f"{module}.py")]
        assert any(re.search(rf"^(?:def |class )?{name}\b", text, re.MULTILINE) for text in texts), (module, name)


def test_the_changelog_begins_with_the_version_that_is_being_made() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    parts = re.findall(
        r"^## (\d+\.\d+\.\d+) — (unreleased|\d{4}-\d{2}-\d{2})$", (ROOT / "CHANGELOG.md").read_text(), re.M
    )
    assert parts[0][0] == version
    assert [number for number, date in parts[1:] if date == "unreleased"] == []


def test_no_page_asks_for_an_owner_that_nobody_knows() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *ROOT.glob("*.nix")]
    assert [page.name for page in pages if re.search(r"(github:|github\.com/)OWNER", page.read_text())] == []
