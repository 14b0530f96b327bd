"""`python -m bench.map [--check]`: the library's structure, drawn from its imports, beside that of earlier commits."""

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from bench.map.figures import Figure, Rooms, measure, rooms
from bench.map.picture import draw
from bench.map.tree import BESIDE, NotInClone, Tree, of_commit, read

EARLIER = ("4a5b6ee", "e8e5084")  # where issue 16 began, and the commit whose figures it names
OUTPUT = Path("build/map")
DEFINITIONS = f"""\
A room is a package or a module directly below the library's root, or the root itself. Counted so, e8e5084 has the 10
floors and 189 arrows that issue 16 gives for it; "root's files as one room" is the other reading. A room stands one
floor above the highest room that it imports; the rooms of a cycle share a floor. An arrow leads from a module to a
module that it imports, wherever in the file and under TYPE_CHECKING too. "Modules with one importer" are modules of the
library, operations and facts that one module of these imports. "Modules that nobody imports" leaves out what
pyproject.toml, a script or a string names, and packages without code. A package of one file has no other source file
and no package in it (an __init__.py without code is not counted). SLOC: the library, {", ".join(BESIDE)}."""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.map", description=__doc__)
    parser.add_argument("--check", action="store_true", help="exit with status 1 when a bound is exceeded")
    options = parser.parse_args(arguments)
    tree = read(Path.cwd())
    figures = measure(tree)
    OUTPUT.mkdir(parents=True, exist_ok=True)
    pictures = [_picture(tree, "here")]
    columns: dict[str, list[Figure] | None] = {"here": figures}
    for commit in EARLIER:
        try:
            with of_commit(Path(), commit) as directory:
                earlier = read(directory)
                columns[commit] = measure(earlier)
                pictures.append(_picture(earlier, commit))
        except NotInClone:
            columns[commit] = None
    print(DEFINITIONS, end="\n\n")
    _print_floors(rooms(tree, [tree.library]))
    _print_names(figures)
    _print_table(columns)
    print(f"\npictures: {', '.join(map(str, pictures))}")
    return _verdict(figures, options.check)


def _picture(tree: Tree, name: str) -> Path:
    """Draw all packages, each room with its number of modules; the library's rooms are below those that use it."""
    every = rooms(tree, tree.packages)
    sizes = Counter(room for module in tree.modules for room in every.names if f"{module}.".startswith(f"{room}."))
    sizes[tree.library] = 1
    labels = {room: _short(room) + (f" {sizes[room]}" if sizes[room] > 1 else "") for room in every.names}
    path = OUTPUT / f"{name}.svg"
    path.write_text(draw(every, f"{tree.library} ({name})", labels))
    return path


def _print_floors(library: Rooms) -> None:
    for number, names in reversed(list(enumerate(library.floors, 1))):
        print(f"floor {number}")
        for name in names:
            imported = [f"{_short(b)} {count}" for (a, b), count in library.arrows.items() if a == name]
            print(f"  {_short(name)} -> {', '.join(imported) or '-'}")
    print()


def _short(room: str) -> str:
    return room.partition(".")[2] or room


def _print_names(figures: list[Figure]) -> None:
    for figure in figures:
        if figure.names:
            print(f"{figure.title}:")
            print("".join(f"  {name}\n" for name in figure.names))


def _print_table(columns: dict[str, list[Figure] | None]) -> None:
    here = columns["here"] or []
    width = max(len(figure.title) for figure in here)
    print(f"{'':{width}}  " + "".join(f"{name:>10}" for name in columns) + f"{'at most':>10}")
    for row, figure in enumerate(here):
        values = [f"{each[row].value:,}" if each else "-" for each in columns.values()]
        bound = "-" if figure.bound is None else f"{figure.bound:,}"
        mark = "" if figure.is_kept else "  beyond"
        print(f"{figure.title:{width}}  " + "".join(f"{value:>10}" for value in values) + f"{bound:>10}{mark}")
    for commit in (name for name, figures in columns.items() if figures is None):
        print(f"{commit} is not in this clone (git fetch --unshallow gets it)")


def _verdict(figures: list[Figure], check: bool) -> int:
    beyond = [figure for figure in figures if not figure.is_kept]
    for figure in beyond if check else ():
        print(f"map: {figure.title}: {figure.value}; the bound is {figure.bound}", file=sys.stderr)
    return 1 if beyond and check else 0


if __name__ == "__main__":
    sys.exit(main())
