"""What the product imports is declared in pyproject.toml, and what is declared is imported."""

import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

ROOT = Path(__file__).parents[1]
OURS = ("nixherd", "operations", "facts", "deploys")
IMPORT = re.compile(r"^ *(?:from|import) ([A-Za-z_]\w*)[\w.]*(?: import .+| as \w+)?$", re.MULTILINE)


def imported() -> dict[str, str]:
    """The modules of others, by their first name, and a file that imports each."""
    found = dict[str, str]()
    for path in (path for package in OURS for path in (ROOT / package).rglob("*.py")):
        found |= {name: str(path.relative_to(ROOT)) for name in IMPORT.findall(path.read_text())}
    return {name: where for name, where in found.items() if name not in {*sys.stdlib_module_names, *OURS}}


def normal(name: str) -> str:
    """As PEP 503 compares the names of distributions."""
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_import_is_declared_and_every_declaration_is_imported() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {normal(re.split(r"[<>=~!\[; ]", each, maxsplit=1)[0]) for each in project["dependencies"]}
    of_module, modules = packages_distributions(), imported()
    needed = {module: {normal(each) for each in of_module.get(module, [module])} for module in modules}
    undeclared = {module: modules[module] for module, names in needed.items() if not names & declared}
    assert undeclared == {}
    assert {"pyinfra", "typing_extensions"} <= needed.keys(), "the search finds what there is"
    assert declared == {name for names in needed.values() for name in names & declared}
