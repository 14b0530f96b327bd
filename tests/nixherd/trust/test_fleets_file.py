"""Messages name the file that the fleet is kept in: `Fleet.file`, which need not be hosts.nix."""

import ast
from collections.abc import Iterator
from pathlib import Path

import nixherd

LIBRARY = Path(nixherd.__file__).parent
# What is of that very file, by its module: it is written, read or described there, whatever the fleet has.
OF_THE_FILE = {
    "cli/check.py": "a script of git's, which looks for either file",
    "cli/help.py": "examples",
    "cli/init.py": "a hosts.nix of another shape",
    "deploy/plan.py": "names both files",
    "fleet/beside.py": "how hosts.nix of another shape is read",
    "fleet/load.py": "says that neither file is there",
    "fleet/models.py": "its name",
    "fleet/near_names.py": "where an attribute belongs, before there is a fleet",
    "fleet/place.py": "looks for it, and names both files",
    "fleet/schema.py": "the reference of what it may say",
    "gate/tools.py": "a tool's description",
    "pyinfra_glue/inventory.py": "names both files",
    "trust/enrol.py": "the mark of an overview, which has to be found again",
    "trust/new/directory.py": "what a directory has",
}


def texts(tree: ast.AST) -> Iterator[str]:
    """Texts of a module but for its docstrings."""
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.value


def test_no_message_takes_hosts_nix_for_the_fleets_file() -> None:
    files = [
        *LIBRARY.rglob("*.py"),
        *(LIBRARY / "operations").resolve().rglob("*.py"),
        *(LIBRARY / "facts").resolve().rglob("*.py"),
    ]
    saying = {
        str(file.relative_to(LIBRARY)) if file.is_relative_to(LIBRARY) else file.name
        for file in files
        if any("hosts.nix" in text for text in texts(ast.parse(file.read_text())))
    }
    assert saying == OF_THE_FILE.keys()
