"""A tree of the project, from the working directory or a commit: its modules, their imports and their sizes."""

import ast
import io
import json
import re
import subprocess
import sys
import tarfile
import tomllib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

from radon.raw import analyze

Edge = tuple[str, str]  # importer, imported

BESIDE = ("operations", "facts", "deploys")
SOURCE_SUFFIXES = (".py", ".nix", ".sh", ".j2")


class NotInClone(Exception):
    """This clone does not have the commit."""


@dataclass(frozen=True)
class Tree:
    """`library` is the library's package; `packages` are the library and the packages of BESIDE in the tree."""

    directory: Path
    library: str
    packages: tuple[str, ...]
    modules: tuple[str, ...]
    imports: frozenset[Edge]
    typing_only: frozenset[Edge]

    @cached_property
    def parents(self) -> frozenset[str]:
        """The modules that are packages."""
        return frozenset(module for module in self.modules if self._path(module).is_dir())

    @cached_property
    def source_files(self) -> tuple[Path, ...]:
        """The source files of all packages."""
        return tuple(
            path
            for package in self.packages
            for path in sorted((self.directory / package).rglob("*"))
            if path.suffix in SOURCE_SUFFIXES
        )

    @cached_property
    def lengths(self) -> dict[Path, int]:
        """Return the number of lines of every source file, by path relative to the tree."""
        visible = [
            path
            for top in sorted(self.directory.iterdir())
            if not top.name.startswith(".") and top.name not in ("build", "dist")
            for path in (sorted(top.rglob("*")) if top.is_dir() and not top.is_symlink() else [top])
        ]
        sources = [path for path in visible if path.suffix in SOURCE_SUFFIXES and not path.is_symlink()]
        return {path.relative_to(self.directory): len(path.read_text().splitlines()) for path in sources}

    @cached_property
    def sloc(self) -> int:
        """The source lines of all packages, counted like `radon raw`."""
        return sum(analyze(path.read_text()).sloc for path in self.source_files if path.suffix == ".py")

    @cached_property
    def entry_points(self) -> frozenset[str]:
        """The modules that are reached without an import statement: from pyproject.toml, from a script, or by name."""
        project = tomllib.loads((self.directory / "pyproject.toml").read_text())["project"]
        groups = [project.get("scripts", {}), *project.get("entry-points", {}).values()]
        names = {value.partition(":")[0] for group in groups for value in group.values()}
        for script in self.directory.glob("*.py"):
            names |= set(_imported(script.read_text(), self.modules))
        quoted = re.compile(rf"""["'](({self.library})(\.\w+)+)[:"']""")
        for path in self.source_files:
            names |= {match[1] for match in quoted.finditer(path.read_text())}
        return frozenset(name for name in self.modules if name in names or name.endswith(".__main__"))

    def file(self, module: str) -> Path:
        """Return the Python file of a module; of a package, its `__init__.py`."""
        path = self._path(module)
        return path / "__init__.py" if module in self.parents else path.with_suffix(".py")

    def lines(self, module: str) -> int:
        file = self.file(module)
        return len(file.read_text().splitlines()) if file.exists() else 0

    def has_code(self, module: str) -> bool:
        """Return whether the file contains more than a docstring."""
        file = self.file(module)
        body = ast.parse(file.read_text()).body if file.exists() else []
        return any(not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)) for node in body)

    def _path(self, module: str) -> Path:
        inside = self.directory / self.library / module.split(".")[0]
        is_inside = module.split(".")[0] in BESIDE and inside.exists() and not inside.is_symlink()
        return (inside.parent if is_inside else self.directory).joinpath(*module.split("."))


def read(directory: Path) -> Tree:
    """Read the tree in a directory. The library's package has the project's name in pyproject.toml."""
    project = tomllib.loads((directory / "pyproject.toml").read_text())["project"]
    library = project["name"]
    packages = (library, *(name for name in BESIDE if (directory / name).is_dir()))
    linked = [name for name in BESIDE if (directory / library / name).exists()]
    read = [name for name in packages if name not in linked]
    argv = [sys.executable, "-I", str(Path(__file__).with_name("imports.py")), str(directory), *read]
    graph = json.loads(subprocess.run(argv, stdout=subprocess.PIPE, check=True).stdout)

    def short(module: str) -> str:
        """The name below the library of what it has links to, as in trees without them."""
        below = module.removeprefix(f"{library}.")
        return below if below.split(".")[0] in linked else module

    def edges(name: str) -> frozenset[Edge]:
        return frozenset((short(importer), short(imported)) for importer, imported in graph[name])

    modules = tuple(sorted(map(short, graph["modules"])))
    return Tree(directory, library, packages, modules, edges("imports"), edges("typing_only"))


@contextmanager
def of_commit(repository: Path, commit: str) -> Iterator[Path]:
    """Provide a temporary directory with the commit's files. Raises NotInClone."""
    archive = subprocess.run(["git", "-C", str(repository), "archive", commit], capture_output=True)
    if archive.returncode:
        raise NotInClone(commit)
    with TemporaryDirectory(prefix="nixherd-map-") as name:
        with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
            files.extractall(name, filter="data")
        yield Path(name)


def _imported(text: str, modules: Collection[str]) -> Iterator[str]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in modules else node.module for name in names)
