"""What a flake said, kept in the state directory while the tree that it is evaluated from stays as it is."""

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nixherd.base.errors import FleetError
from nixherd.base.files import state_home, write_whole
from nixherd.fleet.git import Repository
from nixherd.fleet.world import World, is_settled, look
from nixherd.nix.commands import WORDING

OUTPUTS = "outputs"
DETAILS = "details"


@dataclass(frozen=True)
class Memory:
    """What was said of the flake in a directory; `key` is of its tree, None where that cannot be told, or changes now.

    Whoever can write below the state directory is the operator.
    """

    directory: str
    key: str | None

    @classmethod
    def of(cls, directory: str | os.PathLike[str], world: World | None = None) -> "Memory":
        """Look at the tree. What is remembered without a key is nothing."""
        path = os.path.realpath(directory)
        try:
            return cls(path, _key(path, world or look(path)))
        except FleetError:  # it is said by whoever needs git, or these files
            return cls(path, None)
        except OSError:
            return cls(path, None)

    @property
    def _file(self) -> Path:
        return state_home() / "flakes" / f"{hashlib.sha256(os.fsencode(self.directory)).hexdigest()[:32]}.json"

    def recall(self, what: str) -> Any:
        """What is remembered under this name; None where nothing is."""
        return self._content().get(what) if self.key else None

    def keep(self, what: str, value: Any) -> None:
        """Remember it, beside what is remembered of the same tree; where that cannot be written, it is asked again."""
        if self.key is None:
            return
        with suppress(OSError):
            write_whole(self._file, json.dumps({**self._content(), "key": self.key, what: value}))

    def _content(self) -> Mapping[str, Any]:
        try:
            content = json.loads(self._file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return content if isinstance(content, dict) and content.get("key") == self.key else {}


def _key(path: str, world: World) -> str | None:
    """A digest of all that the flake's evaluation reads of its tree.

    A flake in a git repository is what git knows of, in directories that the closed world leaves out, too.
    """
    repository = Repository.around(Path(path))
    if repository is None:
        if not is_settled(world) or world.closed:
            return None
        seen = sorted(map(repr, world.fingerprint))
    else:
        words = ("-z", "--full-name", "--", repository.to_top)
        listed = repository.read("ls-files", "-v", "--stage", *words).stdout
        rows = [row.partition("\t") for row in listed.split("\0") if row]
        changed = repository.read("ls-files", "--modified", *words).stdout.split("\0")[:-1]
        # of files that git was told to overlook, the index has not what is there
        overlooked = [name for flag, _, name in rows if not flag.startswith("H ")]
        states = [_state(repository.top / name) for name in sorted({*changed, *overlooked})]
        if None in states:
            return None
        seen = [listed, *map(str, states)]
    return hashlib.sha256("\0".join((WORDING, path, *seen)).encode("utf-8", "surrogateescape")).hexdigest()


def _state(path: Path) -> str | None:
    """What tells a changed file from what it was before; None while that is too new to tell."""
    try:
        status = path.lstat()
    except OSError:
        return f"{path} is gone"
    if not is_settled(status.st_ctime_ns):
        return None
    return repr((str(path), status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_mode))
