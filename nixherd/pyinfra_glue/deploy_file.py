"""What a deploy file is: it says so itself, in one call.

    deploy_file("deploy", rollout=True, from_flake=True)

pyinfra connects before it runs a deploy file, so whoever reads the inventory looks for that call in the text of the
files that were named, and of those that they include. A name decides nothing: a path may be written in many ways, and
an operator's own deploy file may include ours.
"""

import ast
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from pyinfra import host
from pyinfra.api.exceptions import PyinfraError

from nixherd.base.errors import Usage

_INCLUDE, _DECLARE = "include", "deploy_file"


class OtherInventory(Usage, PyinfraError):
    """A deploy file of ours for a host of another inventory, where perhaps nothing but pyinfra shows errors."""


@dataclass(frozen=True)
class DeployFile:
    """What a deploy file declares of itself.

    `rollout`: it goes through the hosts in waves, keeps a journal, and needs each host to answer.
    `from_flake`: it brings machines what the flake says, which has to be signed where that is required.
    `makes_machines`: a machine need not be there when it begins.
    `by_hypervisor`: guests are found through the hypervisor alone, which vouches for them.
    `asks_machines`: False where no machine is asked anything.
    `for_nodes`: it is for nodes of the hypervisor, which are not hosts of the fleet.
    """

    step: str
    rollout: bool = False
    from_flake: bool = False
    makes_machines: bool = False
    by_hypervisor: bool = False
    asks_machines: bool = True
    for_nodes: bool = False


def deploy_file(step: str, **flags: bool) -> None:
    """Declare what this deploy file is; see `DeployFile`. Usage for a host, or a way of running, that it is not for."""
    file, context = DeployFile(step, **flags), host.data.get("context")
    is_node = bool(host.data.get("node"))
    if context is None or is_node is not file.for_nodes:
        inventory, limit = ("nodes.py", "NODE") if file.for_nodes else ("inventory.py", "HOST")
        raise OtherInventory(
            f"{step}: {host.name} is not a host of {inventory}, which this deploy file is for; "
            f"run it as: pyinfra {inventory} … --limit {limit}"
        )
    if file.rollout:
        require_order(host.data.get("without_order"))
    if file.from_flake and context.must_be_signed and step not in (host.data.get("steps") or ()):
        raise Usage(
            f"{step}: require_signed is set, and this deploy file was not known before the fleet's files were read; "
            "name it on the command line, or include it by a path that is written out"
        )


def require_order(problem: str | None) -> None:
    """Usage where pyinfra was told to go through the hosts in an order of its own; `problem` says which option."""
    if problem:
        raise Usage(problem)


def declared(words: Sequence[str]) -> Mapping[str, list[DeployFile]]:
    """By deploy file, in the order in which they run, what each declares, with those that it includes.

    Empty where the words run something else. A file that cannot be read or is not Python declares nothing; pyinfra
    says what is wrong with it.
    """
    return {file: [each for each in _read(Path(file)) if each] for file in _files(words)}


def some_are_the_operators(words: Sequence[str]) -> bool:
    """Whether a deploy file that runs declares nothing itself, whatever the files declare that it includes."""
    return any(each is None for file in _files(words) for each in _read(Path(file)))


def _files(words: Sequence[str]) -> Sequence[str]:
    return words if all(word.endswith(".py") for word in words) else ()  # as pyinfra tells them from the rest


def _read(path: Path, including: frozenset[str] = frozenset()) -> Iterator[DeployFile | None]:
    """Yield what a file and those that it includes declare, in the order of the text; None for one without."""
    real = os.path.realpath(path)
    if real in including:
        return
    try:
        calls = list(_calls(ast.parse(path.read_bytes(), str(path))))
    except (OSError, SyntaxError, ValueError):
        calls = []
    if not any(_name(call) == _DECLARE for call in calls):
        yield None
    for call in calls:
        if _name(call) == _DECLARE:
            yield _parsed(path, call)
        elif _name(call) == _INCLUDE and (included := _text(call)):
            # as pyinfra: beside the file with `./`, else below the directory that it runs in
            place = path.parent if included.startswith("./") else Path.cwd()
            yield from _read(place / included, including | {real})


def _name(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def _calls(tree: ast.AST) -> Iterator[ast.Call]:
    """In the order of the text."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return iter(sorted(calls, key=lambda call: (call.lineno, call.col_offset)))


def _text(call: ast.Call) -> str | None:
    named = [each.value for each in call.keywords if each.arg == "filename"]
    first = [*call.args, *named][:1]
    return first[0].value if first and isinstance(first[0], ast.Constant) and isinstance(first[0].value, str) else None


def _parsed(path: Path, call: ast.Call) -> DeployFile:
    """Usage for a declaration that cannot be read: each of its values has to be written out."""
    known = {each.name for each in fields(DeployFile)}
    values = {each.arg: each.value for each in call.keywords}
    step = _text(call)
    if step is None or len(call.args) != 1 or any(not isinstance(value, ast.Constant) for value in values.values()):
        raise Usage(f"{path}:{call.lineno}: {_DECLARE}() takes one text, and flags written out as True or False")
    if unknown := {str(name) for name in values} - known:
        raise Usage(f"{path}:{call.lineno}: {_DECLARE}() does not take {', '.join(sorted(unknown))}")
    return DeployFile(step, **{str(name): bool(value.value) for name, value in values.items()})  # type: ignore[attr-defined]
