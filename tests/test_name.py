"""The project's name is its own: nothing that installs it may ask an index for a name that anybody could register."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_no_dependency_is_the_project_itself() -> None:
    extras = PROJECT["optional-dependencies"]
    requirements = [*PROJECT["dependencies"], *(each for extra in extras.values() for each in extra)]
    names = {re.split(r"[\[<>=~! ;]", each, maxsplit=1)[0].lower() for each in requirements}
    assert PROJECT["name"] not in names
    assert {"pyinfra", "pytest", "aiohttp"} <= names  # the search above would find it


def test_what_installs_it_installs_this_checkout() -> None:
    for file in ("Makefile", "README.md", "CONTRIBUTING.md", ".ci/run"):
        for line in (ROOT / file).read_text().splitlines():
            if "pip install" in line:
                assert re.search(r"-e '?\.|-e \.", line), f"{file}: {line}"
