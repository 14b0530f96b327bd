"""What a repository's commits are, and which of them this operator has proven; for the gate."""

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from nixherd.errors import FleetError
from nixherd.files import state_home, write_whole
from nixherd.fleet import signatures
from nixherd.fleet.git import Repository
from nixherd.fleet.signatures import FULL_HASH, Commit


class History:
    """The commits of a repository, many of them read at a time."""

    def __init__(self, repository: Repository, start: str | None) -> None:
        self._repository = repository
        self._known: dict[str, Commit | None] = {}
        # what git takes for the history saves a process for each commit; nothing else depends on it
        self._guesses = [*([("HEAD", f"^{start}")] if start else []), ("HEAD",)]

    def read(self, ids: Collection[str]) -> Mapping[str, Commit | None]:
        if not self._known.keys() >= set(ids):
            guess = self._repository.reachable(*self._guesses.pop(0)) if self._guesses else []
            self._take({*ids, *guess} - self._known.keys())
        return {id: self._known[id] for id in ids}

    def one(self, id: str | None) -> Commit | None:
        if id is None:
            return None
        self._take({id} - self._known.keys())
        return self._known[id]

    def _take(self, ids: Collection[str]) -> None:
        contents = self._repository.contents(ids)
        for id in ids:
            self._known[id] = signatures.parse(id, contents[id]) if id in contents else None


@dataclass(frozen=True)
class Record:
    """The last revision of a repository that this operator has proven by these signers."""

    path: Path
    about: Mapping[str, str]
    revision: str | None

    @classmethod
    def of(cls, top: Path, signers: Path) -> "Record":
        """FleetError when what is kept cannot be read: nothing would take its place but a guess."""
        about = {"repository": str(top.resolve()), "allowed_signers": str(signers)}
        name = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:32]
        path = state_home() / ".proven" / f"{name}.json"
        try:
            kept = json.loads(path.read_text())
            revision = str(kept["revision"])
        except FileNotFoundError:
            return cls(path, about, None)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise FleetError(f"{path}: cannot be read ({error!r}); remove it, and say signed_from=HASH once") from None
        if not FULL_HASH.fullmatch(revision):
            raise FleetError(f"{path}: {revision!r} is no whole hash; remove it, and say signed_from=HASH once")
        return cls(path, about, revision)

    def note(self, revision: str) -> None:
        if revision != self.revision:
            write_whole(self.path, json.dumps({**self.about, "revision": revision}, indent=2) + "\n")
