"""Operations, facts and deploys, from their docstrings and signatures."""

import inspect
import pkgutil
from collections.abc import Callable, Iterator
from importlib import import_module
from types import ModuleType
from typing import Any

from nixherd import deploys, facts, operations
from nixherd.facts.base import Fact
from pages.reference.prose import NOTE, code, joined, of_docstring

FACTS_ARGUMENTS = ("self",)


def operations_page() -> str:
    """Return the page of `nixherd.operations`: each function with its arguments."""
    sections = []
    for module in modules(operations):
        functions = {name: each for name, each in vars(module).items() if _is_operation(each, module)}
        if functions:
            sections += [f"## {_short(module)}", of_docstring(_doc(module))]
            sections += [_function(f"{_short(module)}.{name}", functions[name]) for name in sorted(functions)]
    how = (
        "`from nixherd.operations import nixos` in a deploy file, or by hand as in "
        "`pyinfra @fleet/web1 nixherd.operations.nixos.rollback` ([how](../operations.md))."
    )
    return joined(["# Operations", NOTE, how, *sections])


def facts_page() -> str:
    """Return the page of `nixherd.facts`: each class with its arguments and the value that it returns."""
    sections = []
    for module in modules(facts):
        classes = {name: each for name, each in vars(module).items() if _is_fact(each, module)}
        if classes:
            sections += [f"## {_short(module)}", of_docstring(_doc(module))]
            sections += [_fact(f"{_short(module)}.{name}", classes[name]) for name in sorted(classes)]
    by_hand = "`nixherd fact HOST --fact facts.nixos.CurrentSystem`"
    how = f"{by_hand}, or `host.get_fact(…)` in a deploy file ([how](../operations.md))."
    return joined(["# Facts", NOTE, how, *sections])


def deploys_page() -> str:
    """Return the page of `nixherd.deploys`: the steps of the workflow."""
    sections = [of_docstring(_doc(deploys))]
    for name in deploys.__all__:
        sections += [f"## {name}", of_docstring(_doc(getattr(deploys, name)))]
    return joined(["# Deploys", NOTE, *sections])


def modules(package: ModuleType) -> Iterator[ModuleType]:
    """Import the modules of a package, in the order of their names."""
    for each in sorted(pkgutil.walk_packages(package.__path__, f"{package.__name__}."), key=lambda each: each.name):
        yield import_module(each.name)


def _is_operation(each: Any, module: ModuleType) -> bool:
    if not hasattr(each, "_inner"):
        return False
    is_given_on = each.__module__.startswith(f"{module.__name__}.")  # a package gives on what its modules have
    return is_given_on or (each.__module__ == module.__name__ and not _is_given_on(each))


def _is_given_on(each: Any) -> bool:
    """Return whether the package of its module has it, too, so that it is called by that name."""
    package = import_module(each.__module__.rpartition(".")[0])
    return getattr(package, each.__name__, None) is each


def _is_fact(each: Any, module: ModuleType) -> bool:
    is_class = isinstance(each, type) and issubclass(each, Fact) and each.__module__ == module.__name__
    return is_class and not vars(each).get("abstract") and "command" in dir(each)


def _function(name: str, function: Any) -> str:
    return joined(
        [f"### {name}", code(f"{name.rpartition('.')[2]}{_parameters(function._inner)}"), of_docstring(_doc(function))]
    )


def _fact(name: str, fact: type[Fact[Any]]) -> str:
    parameters = _parameters(fact.command)
    return joined(
        [
            f"### {name}",
            code(name.rpartition(".")[2] + parameters) if parameters != "()" else "",
            of_docstring(_doc(fact)),
        ]
    )


def _parameters(function: Callable[..., Any]) -> str:
    """Return the parameters with types and defaults, as people write them."""
    signature = inspect.signature(function)
    kept = [each for each in signature.parameters.values() if each.name not in FACTS_ARGUMENTS]
    text = str(signature.replace(parameters=kept, return_annotation=inspect.Signature.empty))
    return text.replace("collections.abc.", "").replace("typing.", "").replace("pathlib.", "")


def _short(module: ModuleType) -> str:
    return module.__name__.removeprefix("nixherd.operations.").removeprefix("nixherd.facts.")


def _doc(each: Any) -> str:
    return inspect.getdoc(each) or ""
