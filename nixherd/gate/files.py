"""Which files of a fleet a tool looks at: those that git knows, as Nix does; and copies of them to work in."""

import os
import stat
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from nixherd import tree
from nixherd.errors import FleetError
from nixherd.git import Repository

_CONFIGURATIONS = ("alejandra.toml", "statix.toml")
_LEFT_OUT = ("result",)


@dataclass(frozen=True)
class Place:
    """Where a tool runs: a directory, and the files in it, by their paths below it.

    `root` is the fleet, or a copy of some of its files; `settings` is where the tools' own settings are.
    """

    root: Path
    files: Sequence[str]
    settings: Path

    @property
    def nix(self) -> list[str]:
        return [file for file in self.files if file.endswith(".nix")]

    @property
    def arguments(self) -> list[str]:
        """The Nix files as words for a program that runs in `root`: none is taken for an option."""
        return [f"./{file}" for file in self.nix]


def of_fleet(root: Path, repository: Repository | None) -> Place:
    """All regular files that git knows and that are there; outside of a repository all but hidden ones."""
    known = _tracked(repository) if repository else _walked(root)
    return Place(root, sorted(file for file in known if _is_regular(root / file)), root)


def _tracked(repository: Repository) -> Iterator[str]:
    for row in repository.read("ls-files", "--stage", "-z", "--", ".").stdout.split("\0")[:-1]:
        about, _, path = row.partition("\t")
        if about.startswith("100"):  # neither link nor submodule
            yield path


def _walked(root: Path) -> Iterator[str]:
    for parent, directories, names in os.walk(root):
        directories[:] = [name for name in directories if not name.startswith(".") and name not in _LEFT_OUT]
        yield from (os.path.relpath(os.path.join(parent, name), root) for name in names)  # noqa: PTH118


def _is_regular(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


def unmerged(repository: Repository) -> list[str]:
    """The files of which git has several versions, after a merge that nobody has finished."""
    rows = repository.read("ls-files", "--unmerged", "-z", "--", ".").stdout.split("\0")[:-1]
    return sorted({row.partition("\t")[2] for row in rows})


@dataclass(frozen=True)
class Changed:
    """What differs from the last commit: `staged` is as git would commit it, the rest as it lies there."""

    staged: Mapping[str, bytes]
    others: Sequence[str]


def changed(repository: Repository) -> Changed:
    """FleetError where git does not answer."""
    staged = _names(repository, "diff", "--cached")
    others = [path for path in _names(repository, "diff") if path not in staged]
    regular = set(_tracked(repository))
    blobs = {path: repository.read("cat-file", "blob", f":./{path}").raw for path in staged if path in regular}
    return Changed(blobs, others)


def _names(repository: Repository, *words: str) -> list[str]:
    filters = ("--name-only", "-z", "--relative", "--no-renames", "--diff-filter=ACMRT")
    return repository.read(*words, *filters, "--", ".").stdout.split("\0")[:-1]


@contextmanager
def copied(root: Path, contents: Mapping[str, bytes]) -> Iterator[Place]:
    """A directory of our own with these files in it, and the settings of the tools that are in the fleet's."""
    with tempfile.TemporaryDirectory(prefix="nixherd-check-") as made:
        directory = Path(made).resolve()
        for path, content in contents.items():
            (directory / path).parent.mkdir(parents=True, exist_ok=True)
            (directory / path).write_bytes(content)
        for name in _CONFIGURATIONS:
            if name not in contents and (setting := _content(root, name)) is not None:
                (directory / name).write_bytes(setting)
        yield Place(directory, sorted(contents), directory)


def _content(root: Path, name: str) -> bytes | None:
    try:
        return tree.read(root, name)
    except FleetError:
        return None


def read_all(root: Path, files: Iterable[str]) -> dict[str, bytes]:
    """Their contents; one that is gone is left out. FleetError for one that is no file of the fleet."""
    found = {file: tree.read(root, file) for file in files}
    return {file: content for file, content in found.items() if content is not None}


def passed_over(repository: Repository) -> list[str]:
    """The files that git knows although its own rules would have it ignore them."""
    words = ("ls-files", "--cached", "--ignored", "--exclude-standard", "-z", "--", ".")
    return repository.read(*words).stdout.split("\0")[:-1]
