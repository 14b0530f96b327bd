"""Which facts can be asked for, by the modules that define them; nothing is imported for that."""

import ast
import difflib
import re
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from textwrap import shorten

from nixherd.base.errors import Usage

OURS = "facts"
_LIBRARY = Path(__file__).parents[1] / OURS
_NOT_OF_HOSTS = ("base", "generations", "proxmox_host")  # what others derive from; what is asked of nodes
_WIDTH = 118
_CLASSES = re.compile(r"^class ([A-Z]\w*)\(", re.MULTILINE)
_NONE_OF_THIS_NAME = re.compile(r"No such (?:module|attribute in module)")


@cache
def described() -> dict[str, str]:
    """Give our facts of hosts, as `facts.nixos.Running`, with the first line about each."""
    return {
        f"{OURS}.{file.stem}.{node.name}": (ast.get_docstring(node) or "").partition("\n")[0]
        for file in sorted(_LIBRARY.glob("*.py"))
        if file.stem not in _NOT_OF_HOSTS
        for node in ast.parse(file.read_text()).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_") and _is_fact(node)
    }


def _is_fact(node: ast.ClassDef) -> bool:
    return any("TypedDict" not in ast.unparse(base) for base in node.bases)


def require_known(names: Iterable[str]) -> None:
    """Raise Usage for what can only be a fact of ours, and is none."""
    for name in names:
        if name.removeprefix("nixherd.").startswith(f"{OURS}.") and name.removeprefix("nixherd.") not in described():
            raise _unknown(name)


def explained(names: Iterable[str], output: str) -> Usage | None:
    """Say which of the facts does not exist, where pyinfra's output says that of one; else None."""
    if not _NONE_OF_THIS_NAME.search(output):
        return None
    known = {*described(), *_pyinfras()}
    return next((_unknown(name) for name in names if name.removeprefix("nixherd.") not in known), None)


def _unknown(name: str) -> Usage:
    known = [*described(), *_pyinfras()]
    by_end = {each.removeprefix(f"{OURS}."): each for each in known}
    near = [by_end[each] for each in difflib.get_close_matches(name.removeprefix(f"{OURS}."), by_end, n=3, cutoff=0.5)]
    nearest = f"; the nearest are {', '.join(near)}" if near else ""
    return Usage(f"--fact {name}: does not exist{nearest}; `nixherd help facts` lists ours")


def _pyinfras() -> Iterator[str]:
    """Names of pyinfra's own, as `server.Hostname`."""
    package = find_spec("pyinfra.facts")
    for place in (package.submodule_search_locations if package else None) or ():
        for file in sorted(Path(place).glob("*.py")):
            yield from (f"{file.stem}.{name}" for name in _CLASSES.findall(file.read_text()))


def _sentence(line: str) -> str:
    return line.removeprefix("Returns ").partition(". ")[0].rstrip(".:")


def page() -> str:
    """List our facts for `nixherd help facts`."""
    width = max(map(len, described()))
    room = _WIDTH - width - 4
    lines = [
        f"  {name:{width}}  {shorten(_sentence(line), room, placeholder=' …')}" for name, line in described().items()
    ]
    return "\n".join(
        [
            "Facts are what `nixherd fact HOST --fact NAME` asks machines, and the hypervisor about their guests:",
            "",
            *lines,
            "",
            "Those of pyinfra, by their module and class, such as server.Hostname, are at",
            "https://docs.pyinfra.com/page/facts.html.",
        ]
    )
