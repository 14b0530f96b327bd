"""The files of a fleet's repository, and which `.sops.yaml` each belongs to: the nearest from its directory upwards.

sops itself looks upwards from the current directory, wherever that leads; here never above the repository's top, or
outside any repository, the fleet's directory. What git ignores is not looked at: no flake has it, and no commit could.
"""

import os
import posixpath
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path

from nixherd.base.errors import Usage
from nixherd.fleet.git import Repository, side_by_side
from nixherd.trust.secrets.rules import CONFIG

# What sops warns of and does not read.
MISNAMED = ".sops.yml"
_GITLINK = "160000"
_SKIPPED = "S"


# What follows from two paths is remembered: a fleet may have thousands of files, and each is named again and again.
@lru_cache(1 << 16)
def from_fleet(path: str, prefix: str) -> str:
    """A path from the repository's top as one from the fleet's directory, which is at `prefix` there."""
    return posixpath.relpath(f"/{path}", f"/{prefix}")


@lru_cache(1 << 16)
def from_top(path: str, prefix: str) -> str:
    """A path from the fleet's directory as one from the repository's top; `.` for that itself."""
    return posixpath.relpath(f"/{prefix}/{path}", "/")


def path_of(directory: str, file: str, prefix: str = "") -> str:
    """The path of a file below a directory, from the fleet's, which is at `prefix` in its repository."""
    return from_fleet(from_top(f"{directory}/{file}", prefix), prefix)


@dataclass(frozen=True, slots=True)
class Layout:
    """A repository's files: all paths are from its top, `prefix` the one of the fleet's directory.

    `directories` are those with a `.sops.yaml`, `submodules` those of other repositories; `belonging` the files that
    are nearest to each of the directories; `absent` those that git has and a sparse checkout leaves out.
    """

    prefix: str
    files: tuple[str, ...]
    directories: tuple[str, ...]
    submodules: tuple[str, ...] = ()
    belonging: Mapping[str, Sequence[str]] = field(default_factory=dict, repr=False)
    absent: frozenset[str] = frozenset()
    repository: Repository | None = field(default=None, repr=False)

    @classmethod
    def of(cls, root: Path, repository: Repository | None = None) -> "Layout":
        """The files below the top of the repository that the fleet is in, untracked ones too.

        The repository is looked for, unless it is known. FleetError when git cannot say its files.
        """
        repository = repository or Repository.around(root)
        if repository is None:
            files, submodules, absent = tuple(_walk(root)), tuple[str, ...](), frozenset[str]()
        else:
            files, submodules, absent = _listed(repository)
        top, prefix = (repository.top, repository.prefix.rstrip("/")) if repository else (root, "")
        inner = _with_parents(map(posixpath.dirname, files))
        # git may ignore it where something makes it
        directories = sorted(each for each in inner if os.path.lexists(top / each / CONFIG))
        belonging = dict[str, list[str]]()
        for path in files:
            if (place := nearest(path, frozenset(directories))) is not None:
                belonging.setdefault(place, []).append(path)
        return cls(prefix, files, tuple(directories), submodules, belonging, absent, repository)

    def files_of(self, directory: str) -> Sequence[str]:
        """Those that belong to the `.sops.yaml` of a directory."""
        return self.belonging.get(directory, ())


def chosen_place(root: Path, prefix: str, directory: str) -> str:
    """A directory, as given from the fleet's, from the repository's top. Usage for one that can hold no secrets."""
    if posixpath.isabs(directory) or posixpath.normpath(f"{prefix or '.'}/{directory}").startswith(".."):
        raise Usage(f"{directory}: is not a directory of the fleet's repository; write it from the fleet's own")
    if ".git" in directory.split("/"):
        raise Usage(f"{directory}: is git's own; no secret is there")
    if (root / directory).is_file():
        raise Usage(f"{directory}: is a file; name the directory with the {CONFIG}")
    return from_top(directory, prefix)


def ignored(root: Path, layout: Layout) -> Iterator[str]:
    """A line for a `.sops.yaml` at the usual place that git ignores, with its whole directory."""
    place = from_top("secrets", layout.prefix)
    if place not in (*layout.directories, *layout.submodules) and os.path.lexists(root / "secrets" / CONFIG):
        yield f"secrets/{CONFIG}: git ignores it, so no flake has what is there; take it out of .gitignore"


def nearest(path: str, directories: Collection[str]) -> str | None:
    """The innermost of the directories that a file is in; all are from the repository's top."""
    inner = posixpath.dirname(path)
    while True:
        if (inner or ".") in directories:
            return inner or "."
        if not inner:
            return None
        inner = posixpath.dirname(inner)


def _with_parents(directories: Iterable[str]) -> set[str]:
    found = {"."}
    for each in set(directories):
        inner = each
        while inner and inner not in found:
            found.add(inner)
            inner = posixpath.dirname(inner)
    return found


def _listed(repository: Repository) -> tuple[tuple[str, ...], tuple[str, ...], frozenset[str]]:
    """The files that git knows or could know, the directories of other repositories in this one, and what is left out.

    The last are of the first: a sparse checkout has not made them.
    """
    whole = replace(repository, directory=repository.top, prefix="")
    kept, new = side_by_side(
        partial(whole.read, "ls-files", "--cached", "--stage", "-t", "-z"),
        partial(whole.read, "ls-files", "--others", "--exclude-standard", "-z"),
    )
    rows = kept.stdout.split("\0")[:-1]
    columns = {path: words.split(" ") for words, _, path in (row.partition("\t") for row in rows)}
    known = {path: mode for path, (_, mode, *_) in columns.items()}
    absent = frozenset(path for path, (tag, *_) in columns.items() if tag == _SKIPPED)
    others = new.stdout.split("\0")[:-1]
    files = {path for path, mode in known.items() if mode != _GITLINK}
    files |= {path for path in others if not path.endswith("/")}
    submodules = {path for path, mode in known.items() if mode == _GITLINK}
    submodules |= {path.rstrip("/") for path in others if path.endswith("/")}  # a repository that git does not enter
    return tuple(sorted(files)), tuple(sorted(submodules)), absent


def _walk(root: Path) -> Iterator[str]:
    for parent, directories, names in os.walk(root):
        directories[:] = sorted(name for name in directories if name != ".git")
        yield from ((Path(parent) / name).relative_to(root).as_posix() for name in sorted(names))
