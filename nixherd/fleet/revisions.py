"""Of which revision of the fleet something is: what a tree says of itself, and what a machine notes of what it runs.

A revision is a commit's whole hash, with `-dirty` where files were not committed. It is not part of a system: a machine
notes it beside, by `revisions.sh`, a line per path, `PATH REVISION WHEN WHO RUN`. A line counts only while that very
path runs. Whoever can write there is root on that machine.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from nixherd.base.errors import FleetError
from nixherd.fleet.git import Repository
from nixherd.nix.commands import is_store_path, revision_of

_FORM = re.compile(r"(?:[0-9a-f]{40}|[0-9a-f]{64})(?:-dirty)?")
_UNKNOWN = "-"
_SHORT = 12  # characters of a hash, for people


@dataclass(frozen=True)
class Note:
    """One line. `when` is UTC, as RFC 3339 has it; `who` and `run` are the deployment's; `revision` may be unknown."""

    path: str
    revision: str | None
    when: str
    who: str
    run: str

    @classmethod
    def parse(cls, line: str) -> "Note | None":
        """None for anything else than exactly that."""
        words = line.split()
        if len(words) != 5 or not is_store_path(words[0]) or not (words[1] == _UNKNOWN or is_revision(words[1])):
            return None
        path, revision, when, who, run = words
        return cls(path, None if revision == _UNKNOWN else revision, when, who, run)

    def __str__(self) -> str:
        return f"{self.path} {word_of(self.revision)} {self.when} {self.who} {self.run}"


def is_revision(text: str) -> bool:
    return _FORM.fullmatch(text) is not None


def word_of(revision: str | None) -> str:
    """As machines are told it and note it."""
    return revision if revision and is_revision(revision) else _UNKNOWN


def shown(revision: str | None) -> str:
    """For people: what is not known is said to be that."""
    if revision is None:
        return "unknown"
    whole, dirty, _ = revision.partition("-dirty")
    return f"{whole[:_SHORT] if is_revision(whole) else whole}{dirty}"


def noted_of(path: str | None, line: str | None) -> str | None:
    """The revision that a machine's line says this path is of; None where it is a line of another path, or none."""
    note = Note.parse(line or "")
    return note.revision if note and note.path == path else None


def of_running(path: str | None, line: str | None, version_json: str) -> str | None:
    """The revision of what a machine runs: by its note, else by the system's own word, where it has one in it.

    None where neither is there: it is not known.
    """
    return noted_of(path, line) or revision_of(version_json)


@dataclass(frozen=True)
class Tree:
    """The flake in a directory, as its files are at each moment."""

    directory: str

    @property
    def url(self) -> str:
        """The directory itself: a link to one is not a flake to Nix."""
        return os.path.realpath(self.directory)

    @property
    def revision(self) -> str | None:
        """The revision of the files as they are now; None where nobody can say."""
        try:
            repository = Repository.around(Path(self.directory))
            if repository is None:
                return None
            return repository.full_head() + ("-dirty" if repository.changed(["."]) else "")
        except FleetError:  # whoever needs git says what is wrong with it
            return None
