"""Whether an edit of the fleet's files means what was intended: both versions are evaluated and compared."""

import os
from collections.abc import Collection, Container, Mapping, Sequence
from pathlib import Path
from typing import Any

from nixherd.errors import FleetError
from nixherd.fleet.evaluate import evaluate
from nixherd.fleet.nix_values import NixPath
from nixherd.fleet.validate import DEFINITIONS, HOSTS
from nixherd.fleet.world import World, look, view_of

Leaf = tuple[str, ...]
ABSENT: Any = object()
"""what an attribute is intended to be that is to be there no more"""


def require_exactly(
    directory: Path,
    edited: Mapping[str, bytes],
    intended: Mapping[Leaf, Any],
    scratch: Path,
    gone: Collection[Leaf] = (),
) -> World:
    """FleetError unless the edited files, evaluated, differ from those of the directory in exactly what is intended.

    `edited` maps paths below the directory to contents, `intended` attributes, as ("hosts.nix", "dev", "publicKey"), to
    their new values (ABSENT: it goes); those that are `gone` are there no more, with all that is in them. A view of
    the fleet with the edited files in it is made below `scratch`, and returned.
    """
    world = look(directory)
    below = world.fleet[len(world.root) :].lstrip("/")
    view = scratch / "view"
    _mirror(Path(world.root), view, {str(Path(below, path)): content for path, content in edited.items()}, world.closed)
    # Nix follows links: what an edited file takes from beside it has paths of the directory itself.
    places = (str(view / below), str(directory), str(view), os.path.realpath(view), world.root)
    wanted = {**_leaves_of(world, directory, places), **intended}
    seen = view_of(view, world)
    after = _leaves_of(seen, view / below, places)
    for each in gone:
        wanted = {leaf: value for leaf, value in wanted.items() if leaf[: len(each)] != each}
        if not any(leaf[: len(each) - 1] == each[:-1] for leaf in wanted) and after.get(each[:-1]) == {}:
            wanted[each[:-1]] = {}  # the set that it was the last one of
    for leaf in sorted({*wanted, *after}):
        is_, should_be = after.get(leaf, ABSENT), wanted.get(leaf, ABSENT)
        if is_ != should_be:
            raise FleetError(
                f"{leaf[0]}: the edit would change {'.'.join(leaf[1:])} to {_shown(is_)}, not to {_shown(should_be)}; "
                "edit it by hand"
            )
    return seen


def _leaves_of(world: World, directory: Path, places: Sequence[str]) -> dict[Leaf, Any]:
    hosts, definitions = evaluate(world, directory)
    return {**dict(_leaves((HOSTS,), hosts, places)), **dict(_leaves((DEFINITIONS,), definitions, places))}


def _leaves(path: Leaf, value: Any, places: Sequence[str]) -> list[tuple[Leaf, Any]]:
    if isinstance(value, Mapping) and value:
        return [leaf for name, inner in value.items() for leaf in _leaves((*path, name), inner, places)]
    return [(path, _plain(value, places))]


def _plain(value: Any, places: Sequence[str]) -> Any:
    """Paths as they are below the fleet's directory, and apart from strings."""
    if isinstance(value, NixPath):
        inside = next((place for place in places if value.startswith(f"{place}/")), "")
        return ("path", value[len(inside) :])
    if isinstance(value, list):
        return [_plain(each, places) for each in value]
    return value


def _shown(value: Any) -> str:
    return "nothing" if value is ABSENT else repr(value)


def _mirror(directory: Path, view: Path, edited: dict[str, bytes], closed: Container[str]) -> None:
    """The directory by links, the edited files in their places; without what nobody sees."""
    view.mkdir(parents=True)
    here = {path: content for path, content in edited.items() if "/" not in path}
    below = {path.partition("/")[0] for path in edited if "/" in path}
    if directory.is_dir():  # a new one is in the view alone
        with os.scandir(directory) as entries:
            for entry in entries:
                if entry.name not in here and entry.name not in below and entry.path not in closed:
                    (view / entry.name).symlink_to(directory / entry.name)
    for name, content in here.items():
        (view / name).write_bytes(content)
    for name in below:
        inner = {path.partition("/")[2]: each for path, each in edited.items() if path.startswith(f"{name}/")}
        _mirror(directory / name, view / name, inner, closed)
