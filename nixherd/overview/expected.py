"""What hosts are to be, by the fleet's files: evaluated now, or kept from an evaluation of the same revision.

Kept is `STATUS/evaluated/REVISION.json` below the fleet's state directory, by host, for the last revisions, and only
for committed ones: of files that were not, the revision does not say which.
"""

import json
import os
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nixherd.base.files import lock, write_whole
from nixherd.base.names import many
from nixherd.fleet.revisions import is_revision, shown
from nixherd.nix.commands import Evaluated, is_store_path

STATUS = ".status"
_KEPT = 20  # revisions


@dataclass(frozen=True)
class Expected:
    """What a host is to be. `why` says why it is not known. `secrets` are the paths on the machine at which it is to
    have secrets, `files` those in the repository that they come from; None where that is not known. `updates` as in
    `Evaluated`. `source`: evaluated, kept or deployed."""

    system: str | None = None
    revision: str | None = None
    source: str | None = None
    why: str | None = None
    secrets: tuple[str, ...] | None = None
    files: tuple[str, ...] | None = None
    updates: Mapping[str, bool] | None = None

    @classmethod
    def of(cls, config: Evaluated) -> "Expected":
        declared = config.declared
        known = declared.problem is None
        return cls(
            *(config.toplevel, config.revision, "evaluated"),
            secrets=tuple(dict.fromkeys(each.path for each in declared.of_system if each.path)) if known else None,
            files=declared.files if known else None,
            updates=config.updates,
        )


class Kept:
    """What was evaluated before."""

    def __init__(self, state_directory: Path) -> None:
        self._directory = state_directory / STATUS / "evaluated"

    def recall(self, revision: str | None) -> dict[str, Expected]:
        """What hosts were to be at a revision, as far as that was evaluated from here."""
        if revision is None or revision.endswith("-dirty"):
            return {}
        found = self._read(revision)
        parsed = {host: _parsed(values) for host, values in found.items()}
        return {host: each for host, each in parsed.items() if each is not None}

    def keep(self, revision: str | None, hosts: Mapping[str, Expected]) -> None:
        """Keep it, beside what is kept of other hosts; nothing of files that were not committed.

        Where it cannot be written it is not kept: the next one evaluates.
        """
        if revision is None or revision.endswith("-dirty") or not is_revision(revision) or not hosts:
            return
        with suppress(OSError):
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            held = lock(self._directory / "lock", wait=True)
            try:
                values = {**self._read(revision), **{host: asdict(each) for host, each in hosts.items()}}
                write_whole(self._file(revision), json.dumps(values))
                self._prune()
            finally:
                os.close(held)

    def _file(self, revision: str) -> Path:
        return self._directory / f"{revision}.json"

    def _read(self, revision: str) -> dict[str, Any]:
        try:
            found = json.loads(self._file(revision).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def _prune(self) -> None:
        files = sorted(self._directory.glob("*.json"), key=lambda file: file.stat().st_mtime)
        for old in files[:-_KEPT]:
            old.unlink(missing_ok=True)


def _parsed(values: Any) -> Expected | None:
    """What is kept of a host; None for anything else."""
    try:
        system, updates = values["system"], values["updates"]
        if not is_store_path(system) or not isinstance(updates, dict | None):
            return None
        secrets, files = (None if values[name] is None else tuple(values[name]) for name in ("secrets", "files"))
        return Expected(system, values["revision"], "kept", secrets=secrets, files=files, updates=updates)
    except (KeyError, TypeError, AttributeError):
        return None


def unevaluated(
    revision: str | None, hosts: Collection[str], kept: Mapping[str, Expected], deployed: Mapping[str, str]
) -> dict[str, Expected]:
    """What hosts are to be without an evaluation: what is kept of that revision, else what was `deployed` of it, by
    host, else why that is not known."""
    if revision is None:
        why = "git does not say of which revision the fleet's files are, so nothing kept can be of them"
    elif revision.endswith("-dirty"):
        why = "files were changed since the last commit, and what they say was not evaluated"
    else:
        why = f"{shown(revision)} was not evaluated from here yet"
    remedy = f"{why}; without --no-eval it is ({many(len(hosts), 'host')})"
    found = {host: Expected(system, revision, "deployed") for host, system in deployed.items()}
    unknown = Expected(revision=revision, why=remedy)
    return {host: kept.get(host) or found.get(host) or unknown for host in hosts}
