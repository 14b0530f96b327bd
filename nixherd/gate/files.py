"""The files that a tool looks at: those that git knows, as Nix does; copies to work in; what no text may hold."""

import os
import re
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from nixherd.base.errors import FleetError
from nixherd.fleet import tree
from nixherd.fleet.git import Repository
from nixherd.gate.results import Found, Look

_CONFIGURATIONS = ("alejandra.toml", "statix.toml")
_LEFT_OUT = ("result",)
_LARGEST = 4 << 20  # bytes of a text that somebody wrote


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

    def text(self, file: str) -> bytes:
        """Its content; nothing where it is not text, or so large that nobody wrote it. OSError."""
        path = self.root / file
        if path.stat().st_size > _LARGEST:
            return b""
        content = path.read_bytes()
        return b"" if b"\0" in content[:8000] else content


def of_fleet(root: Path, repository: Repository | None) -> Place:
    """All regular files that git knows and that are there; outside of a repository all but hidden ones."""
    known = _tracked(repository) if repository else _walked(root)
    # of a file that is not merged git has several versions
    return Place(root, sorted({file for file in known if _is_regular(root / file)}), root)


def _tracked(repository: Repository) -> Iterator[str]:
    for row in _rows(repository, "ls-files", "--stage", "-z", "--", "."):
        mode, _, path = row.partition("\t")
        if mode.startswith("100"):  # neither link nor submodule
            yield path


def _rows(repository: Repository, *words: str) -> list[str]:
    """What git prints between NULs; a name that is not UTF-8 is as Python has such (PEP 383), and means the file."""
    return os.fsdecode(repository.read(*words).raw).split("\0")[:-1]


def _walked(root: Path) -> Iterator[str]:
    def refuse(error: OSError) -> None:
        raise FleetError(f"{error.filename}: {error.strerror}; see to its rights")

    for parent, directories, names in os.walk(root, onerror=refuse):
        directories[:] = [name for name in directories if not name.startswith(".") and name not in _LEFT_OUT]
        yield from (os.path.relpath(os.path.join(parent, name), root) for name in names)  # noqa: PTH118


def _is_regular(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except (FileNotFoundError, NotADirectoryError):  # deleted, and that is not committed
        return False
    except OSError as error:
        raise FleetError(f"{path}: {error.strerror}; see to its rights") from error


def unmerged(repository: Repository) -> list[str]:
    """The files of which git has several versions, after a merge that nobody has finished."""
    rows = _rows(repository, "ls-files", "--unmerged", "-z", "--", ".")
    return sorted({row.partition("\t")[2] for row in rows})


def changed(repository: Repository) -> dict[str, bytes]:
    """The files that differ from the last commit: staged ones as git would commit them, the rest as they lie there.

    FleetError where git does not answer.
    """
    repository = repository.of_hook()
    staged = _names(repository, "diff", "--cached")
    named = _names(repository, "diff")
    others = [path for path in named if path not in staged and _is_regular(repository.directory / path)]
    regular = set(_tracked(repository))
    blobs = {path: repository.read("cat-file", "blob", f":./{path}").raw for path in staged if path in regular}
    return {**blobs, **read_all(repository.directory, others)}


def _names(repository: Repository, *words: str) -> list[str]:
    filters = ("--name-only", "-z", "--relative", "--no-renames", "--diff-filter=ACMRT")
    return _rows(repository, *words, *filters, "--", ".")


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
        # settings above the fleet count as well: statix looks for its own there
        has_own = any((directory / name).exists() for name in _CONFIGURATIONS)
        yield Place(directory, sorted(contents), directory if has_own else root)


def _content(root: Path, name: str) -> bytes | None:
    try:
        return tree.read(root, name)
    except FleetError:
        return None


def read_all(root: Path, files: Iterable[str]) -> dict[str, bytes]:
    """Their contents; one that is gone is left out. FleetError for one that is not a file of the fleet."""
    found = {file: tree.read(root, file) for file in files}
    return {file: content for file, content in found.items() if content is not None}


_CONFLICT_BEGIN = re.compile(rb"^<{7} [^\n]*$", re.MULTILINE)
_CONFLICT_END = re.compile(rb"^>{7} [^\n]*$", re.MULTILINE)
_MERGE = "decide what is to stay, and `git add` it"


def conflicts(place: Place, unmerged: Callable[[], Sequence[str]] = tuple) -> Look:
    """All text files, not only Nix."""
    found, unknown = [], []
    for file in place.files:
        try:
            found += markers(file, place.text(file))
        except OSError as error:
            unknown.append(f"{file}: {error.strerror}")
    marked = {each.file for each in found}
    found += [Found("is not merged", file, remedy=_MERGE, rule="merge") for file in unmerged() if file not in marked]
    return Look(found, f"{len(place.files)} files", "; ".join(unknown))


def markers(file: str, content: bytes) -> list[Found]:
    """Each beginning that an end follows."""
    if b"<<<<<<< " not in content:
        return []
    return [
        Found("a conflict that was not resolved", file, content[: begin.start()].count(b"\n") + 1, remedy=_MERGE)
        for begin in _CONFLICT_BEGIN.finditer(content)
        if _CONFLICT_END.search(content, begin.end())
    ]


_KEY = re.compile(
    rb"\bAGE-SECRET-KEY-(?:PQ-)?1[0-9A-Z]{40,}|^[ \t\"']*-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY-----", re.MULTILINE
)
_REPLACE_KEY = "take it out of the history too, and make another one: whoever has the repository has it"


def private_keys(place: Place) -> Iterator[Found]:
    """Each with its line. OSError for a file that cannot be read."""
    for file in place.files:
        content = place.text(file)
        if b"KEY-" not in content:
            continue
        for found in _KEY.finditer(content):
            line = content.count(b"\n", 0, found.start()) + 1
            yield Found("a private key in plain text", file, line, remedy=_REPLACE_KEY, rule="private-key")
