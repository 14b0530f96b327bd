"""CONTRIBUTING.md names files that exist."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "CONTRIBUTING.md").read_text()
PATH = re.compile(r"`((?:nixherd|operations|facts|deploys|lab|bench|fleet|tests|docs)/[\w./-]*)`")


def test_files_that_are_named_exist() -> None:
    paths = PATH.findall(PAGE)
    assert len(paths) > 30
    assert [path for path in paths if not (ROOT / path).exists() and not re.search("NAME|NOUN|CASE", path)] == []
