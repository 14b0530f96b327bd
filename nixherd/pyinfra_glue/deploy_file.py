"""What a deploy file is: what it calls says so, a function of `nixherd.deploys` or `deploy_file` itself.

    @workflow("deploy", rollout=True, from_flake=True)          deploy_file("deploy", rollout=True, from_flake=True)
    def deploy() -> None: ...

pyinfra connects before it runs a deploy file, so whoever reads the inventory looks for those calls in the text of the
files that were named, and of those that they include. A name decides nothing: a path may be written in many ways, and
an operator's own deploy file may include ours.
"""

import ast
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import wraps
from importlib import import_module
from pathlib import Path
from typing import ParamSpec

from pyinfra import host
from pyinfra.api import deploy as pyinfra_deploy
from pyinfra.api.arguments_typed import PyinfraOperation
from pyinfra.api.exceptions import PyinfraError

from nixherd.base.errors import Usage

_INCLUDE, _DECLARE, _WORKFLOWS = "include", "deploy_file", "nixherd.deploys."
P = ParamSpec("P")


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


def workflow(step: str, **flags: bool) -> Callable[[Callable[P, None]], PyinfraOperation[P]]:
    """Make a function of rows a deploy of pyinfra that declares what it is; see `DeployFile`."""
    declaration = DeployFile(step, **flags)

    def decorate(function: Callable[P, None]) -> PyinfraOperation[P]:
        @wraps(function)
        def rows(*args: P.args, **arguments: P.kwargs) -> None:
            deploy_file(step, **flags)
            function(*args, **arguments)

        rows.declares = declaration  # type: ignore[attr-defined]
        return pyinfra_deploy(step)(rows)

    return decorate


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

    A function of `nixherd.deploys` that is named alone counts as a file. Empty where the words run something else. A
    file that cannot be read or is not Python declares nothing; pyinfra says what is wrong with it.
    """
    if words and (function := _workflow(words[0].replace(":", "."))):
        return {words[0]: [function]}
    return {file: [each for each in _read(Path(file)) if each] for file in _files(words)}


def some_are_the_operators(words: Sequence[str]) -> bool:
    """Whether a deploy file that runs declares nothing itself, whatever the files declare that it includes."""
    return any(each is None for file in _files(words) for each in _read(Path(file)))


def _files(words: Sequence[str]) -> Sequence[str]:
    return words if all(word.endswith(".py") for word in words) else ()  # as pyinfra tells them from the rest


def _read(path: Path, including: frozenset[str] = frozenset()) -> Iterator[DeployFile | None]:
    """Yield what a file and those that it includes declare, in the order of the text; None for an operator's own.

    That is one that neither declares itself what it is nor consists of calls of `nixherd.deploys` alone.
    """
    real = os.path.realpath(path)
    if real in including:
        return
    try:
        tree = ast.parse(path.read_bytes(), str(path))
    except (OSError, SyntaxError, ValueError):
        tree = ast.Module([], [])
    calls, imported = list(_calls(tree)), _imported(tree)
    workflows = {call: declares for call in calls if (declares := _workflow(_dotted(call.func, imported)))}
    if not any(_name(call) == _DECLARE for call in calls) and not _only_calls(tree, workflows):
        yield None
    for call in calls:
        if call in workflows:
            yield workflows[call]
        elif _name(call) == _DECLARE:
            yield _parsed(path, call)
        elif _name(call) == _INCLUDE and (included := _text(call)):
            # as pyinfra: beside the file with `./`, else below the directory that it runs in
            place = path.parent if included.startswith("./") else Path.cwd()
            yield from _read(place / included, including | {real})


def _imported(tree: ast.AST) -> dict[str, str]:
    """By the name that a file uses, the whole name of what it imports anywhere."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and not node.level:
            names |= {each.asname or each.name: f"{node.module}.{each.name}" for each in node.names}
        elif isinstance(node, ast.Import):
            names |= {each.asname: each.name for each in node.names if each.asname}
            names |= {first: first for each in node.names if not each.asname for first in [each.name.split(".")[0]]}
    return names


def _dotted(function: ast.expr, imported: Mapping[str, str]) -> str:
    """The whole name of a function that is called, "" where that is computed."""
    if isinstance(function, ast.Name):
        return imported.get(function.id, "")
    if isinstance(function, ast.Attribute) and (parent := _dotted(function.value, imported)):
        return f"{parent}.{function.attr}"
    return ""


def _workflow(name: str) -> DeployFile | None:
    """What a function of `nixherd.deploys` declares; None for any other name."""
    if not name.startswith(_WORKFLOWS):
        return None
    module, _, function = name.rpartition(".")
    try:
        return getattr(getattr(import_module(module), function), "declares", None)
    except (ImportError, AttributeError):
        return None  # pyinfra says so


def _only_calls(tree: ast.Module, workflows: Mapping[ast.Call, DeployFile]) -> bool:
    """Whether a file has nothing but calls of `nixherd.deploys`, beside its docstring and imports."""
    others = [node for node in tree.body if not isinstance(node, ast.Import | ast.ImportFrom)]
    values = [node.value if isinstance(node, ast.Expr) else node for node in others]
    return bool(workflows) and all(value in workflows or isinstance(value, ast.Constant) for value in values)


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
