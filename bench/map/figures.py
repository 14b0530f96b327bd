"""The figures of a tree, defined so that e8e5084 has those named in issue 16."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path

from bench.map.tree import Edge, Tree

LONG_FILE = 400  # lines
CHECKING = ("tests", "bench", "pages")
SLOC_BOUND = 30_679 - 800  # where issue 16 began (4a5b6ee), less the reduction that it asks for


@dataclass(frozen=True)
class Figure:
    """`bound` is the largest acceptable value; `names` list what was counted where that helps."""

    title: str
    value: int
    bound: int | None = None
    names: tuple[str, ...] = ()

    @property
    def is_kept(self) -> bool:
        return self.bound is None or self.value <= self.bound


@dataclass(frozen=True)
class Rooms:
    """Rooms, and the number of module imports behind each arrow between two rooms."""

    names: tuple[str, ...]
    arrows: Mapping[Edge, int]

    @property
    def floors(self) -> list[list[str]]:
        """The floors from the bottom: a room stands above everything that it imports. The rooms of a cycle share a
        floor.
        """
        return floors(self.names, self.arrows)

    @property
    def cycles(self) -> list[list[str]]:
        return cycles(self.names, self.arrows)


def rooms(tree: Tree, packages: Collection[str], root_is_one: bool = False) -> Rooms:
    """Return the rooms of some packages.

    In the library, the root and each package and module directly below it is a room; every other package is one room.
    With `root_is_one` the modules directly below the root belong to the root's room.
    """

    def room(module: str) -> str:
        parts = module.split(".")
        if parts[0] != tree.library:
            return parts[0]
        name = ".".join(parts[:2])
        return tree.library if root_is_one and name not in tree.parents else name

    arrows: dict[Edge, int] = {}
    for importer, imported in tree.imports:
        edge = room(importer), room(imported)
        if edge[0] != edge[1] and {importer.split(".")[0], imported.split(".")[0]} <= set(packages):
            arrows[edge] = arrows.get(edge, 0) + 1
    names = {room(module) for module in tree.modules if module.split(".")[0] in packages}
    return Rooms(tuple(sorted(names)), dict(sorted(arrows.items())))


def measure(tree: Tree) -> list[Figure]:
    library = rooms(tree, [tree.library])
    tree_figures = rooms(tree, [tree.library], root_is_one=True)
    inside = [edge for edge in tree.imports if all(name.split(".")[0] == tree.library for name in edge)]
    counted = [name for name in tree.packages if name != "deploys"]
    importers = _importers(tree)
    single = {
        module: next(iter(names))
        for module in tree.modules
        if module.split(".")[0] in counted
        and len(names := {name for name in importers[module] if name.split(".")[0] in counted}) == 1
    }
    orphans = [
        module
        for module in tree.modules
        if module.split(".")[0] == tree.library
        and not importers[module]
        and module not in tree.entry_points
        and (module not in tree.parents or tree.has_code(module))
    ]
    lonely = [package for package in sorted(tree.parents) if len(_contents(tree, package)) == 1]
    tangled = cycles(tree.modules, tree.imports)
    at_runtime = cycles(tree.modules, tree.imports - tree.typing_only)
    long = sorted(((count, path) for path, count in tree.lengths.items() if count > LONG_FILE), reverse=True)
    tested = [each for each in long if each[1].parts[0] in CHECKING]
    return [
        Figure("rooms", len(library.names)),
        Figure("floors", len(library.floors), 6),
        Figure("arrows between rooms", len(library.arrows), 40),
        Figure("cycles of rooms", len(library.cycles), 0, tuple(map(", ".join, library.cycles))),
        Figure("root's files as one room: rooms", len(tree_figures.names)),
        Figure("root's files as one room: floors", len(tree_figures.floors)),
        Figure("root's files as one room: arrows", len(tree_figures.arrows)),
        Figure(
            "root's files as one room: cycles",
            len(tree_figures.cycles),
            None,
            tuple(map(", ".join, tree_figures.cycles)),
        ),
        Figure("modules of the library", sum(name.split(".")[0] == tree.library for name in tree.modules)),
        Figure("arrows between the library's modules", len(inside), 400),
        Figure(
            "modules with one importer",
            len(single),
            20,
            tuple(
                f"{name} ({tree.lines(name)} lines) <- {single[name]} ({tree.lines(single[name])})" for name in single
            ),
        ),
        Figure("modules that nobody imports", len(orphans), None, tuple(orphans)),
        Figure("packages of one file", len(lonely), 0, tuple(lonely)),
        Figure(
            "cycles of modules",
            len(tangled),
            0,
            tuple(", ".join(each) + ("" if each in at_runtime else " (for type checkers only)") for each in tangled),
        ),
        _files(f"files over {LONG_FILE} lines, product and lab", [each for each in long if each not in tested], 0),
        _files(f"files over {LONG_FILE} lines, tests and bench", tested, None),
        Figure("SLOC (radon raw)", tree.sloc, SLOC_BOUND),
    ]


def _files(title: str, files: list[tuple[int, Path]], bound: int | None) -> Figure:
    return Figure(title, len(files), bound, tuple(f"{path} ({count})" for count, path in files))


def cycles(nodes: Iterable[str], edges: Iterable[Edge]) -> list[list[str]]:
    """Return the sets of more than one node in which each node leads to all others."""
    return sorted(sorted(part) for part in _components(nodes, edges) if len(part) > 1)


def floors(nodes: Iterable[str], edges: Iterable[Edge]) -> list[list[str]]:
    edges = list(edges)
    parts = _components(nodes, edges)
    part_of = {name: number for number, part in enumerate(parts) for name in part}
    below: dict[int, set[int]] = {number: set() for number in range(len(parts))}
    for importer, imported in edges:
        if part_of[importer] != part_of[imported]:
            below[part_of[importer]].add(part_of[imported])
    height: dict[int, int] = {}
    for number in TopologicalSorter(below).static_order():
        height[number] = max((height[each] + 1 for each in below[number]), default=0)
    levels: list[list[str]] = [[] for _ in range(max(height.values(), default=-1) + 1)]
    for number, part in enumerate(parts):
        levels[height[number]] += part
    return [sorted(level) for level in levels]


def _components(nodes: Iterable[str], edges: Iterable[Edge]) -> list[list[str]]:
    """Return the strongly connected components (Kosaraju's algorithm)."""
    ahead: dict[str, list[str]] = {name: [] for name in nodes}
    back: dict[str, list[str]] = {name: [] for name in ahead}
    for importer, imported in edges:
        ahead[importer].append(imported)
        back[imported].append(importer)
    visited: set[str] = set()
    order = [name for start in ahead for name in _reach(start, ahead, visited)]
    visited = set()
    return [part for start in reversed(order) if (part := _reach(start, back, visited))]


def _reach(start: str, ahead: Mapping[str, list[str]], visited: set[str]) -> list[str]:
    """List the nodes not yet visited, each after those that it leads to."""
    if start in visited:
        return []
    visited.add(start)
    finished, stack = [], [(start, iter(ahead[start]))]
    while stack:
        node, following = stack[-1]
        if (name := next((each for each in following if each not in visited), None)) is None:
            finished.append(node)
            stack.pop()
        else:
            visited.add(name)
            stack.append((name, iter(ahead[name])))
    return finished


def _importers(tree: Tree) -> dict[str, set[str]]:
    importers: dict[str, set[str]] = {module: set() for module in tree.modules}
    for importer, imported in tree.imports:
        importers[imported].add(importer)
    return importers


def _contents(tree: Tree, package: str) -> list[str]:
    """Return the package's source files, without an `__init__.py` that has no code, and its packages."""
    directory = tree.file(package).parent
    files = [path.name for path in tree.source_files if path.parent == directory]
    if not tree.has_code(package):
        files = [name for name in files if name != "__init__.py"]
    return files + [name for name in tree.parents if name.rpartition(".")[0] == package]
