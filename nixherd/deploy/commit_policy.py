"""What may be deployed at all: what is committed, and where that is required signed by somebody who may.

Who may sign is said outside the tree, in a file as ssh-keygen(1) describes it. Each commit is verified as the object
that it is, from the last one that this operator has proven, and what is evaluated then is that very one, by its hash.
"""

import hashlib
import json
import os
import stat
import tempfile
import time
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from nixherd.base.errors import FleetError, ProcessFailed, Refused, Usage
from nixherd.base.files import expanded, state_home, write_whole
from nixherd.base.names import flag_of
from nixherd.base.process import run
from nixherd.fleet import signatures
from nixherd.fleet.git import Repository
from nixherd.fleet.groups import for_all, said_for_all
from nixherd.fleet.load import load_fleet
from nixherd.fleet.models import Fleet
from nixherd.fleet.near_names import near_option
from nixherd.fleet.signatures import FULL_HASH, Commit
from nixherd.nix import commands as nix
from nixherd.nix.errors import last_error

DATA_KEYS = ("require_signed", "allowed_signers", "signed_from")
DEFAULT_SIGNERS = "~/.config/nixherd/allowed_signers"
_TIMEOUT = 600.0  # seconds


def uncommitted(fleet: str) -> list[str]:
    """Files of the fleet that differ from what is committed; none outside a repository."""
    repository = Repository.around(Path(fleet))
    return repository.changed(["."]) if repository else []


def require_committed(fleet: str, dirty: Sequence[str]) -> None:
    """FleetError while there are such files: nobody could say later what was deployed."""
    if dirty:
        more = f" (and {len(dirty) - 1} more)" if len(dirty) > 1 else ""
        raise FleetError(
            f"{fleet}/{dirty[0]}: has changes that are not committed{more}; commit them, or say --allow-dirty (data "
            "allow_dirty=True)"
        )


def required_by_hosts(fleet: Fleet) -> bool:
    """Whether a host's entry in hosts.nix requires signatures; of who may sign and from where entries say nothing."""
    return any(host.deployment.get("require_signed") for host in fleet.hosts.values())


@dataclass(frozen=True)
class Verified:
    """A commit that was verified: `url` is the flake of that very commit, `path` the fleet's directory in the store."""

    revision: str
    url: str
    path: Path

    def fleet(self, place: Path) -> Fleet:
        """What hosts.nix and the definitions of this commit say, as of the checkout at `place`."""
        return replace(load_fleet(self.path), path=str(place))


@dataclass(frozen=True)
class Gate:
    """What a fleet's commits have to be signed by.

    `told` and `first` are the whole hashes of commits for which the operator vouches, with all that they follow: `told`
    for this run, whatever was proven before; `first` where nothing was yet. With `notes` what is proven is kept.
    """

    fleet: Path
    signers: Path
    told: str | None = None
    first: str | None = None
    notes: bool = True

    @classmethod
    def of(
        cls, fleet: Path, values: Mapping[str, Any], group_data: Sequence[Path], *, by_hosts: bool = False, notes: bool
    ) -> "Gate | None":
        """None where nobody requires it. Usage for what cannot be meant.

        `values` are the command line's by name, which go before what is said for all hosts in the directories
        `group_data`. `by_hosts`: hosts.nix requires it.
        """

        def words(name: str) -> list[Any]:
            return [values[name]] if name in values else list(said_for_all(name, group_data))

        for name in for_all(group_data):
            if (known := near_option(name)) in DATA_KEYS:
                raise Usage(f"group_data/all.py: {name}: nobody asks for it; write {known}")
        if not any(_flag(value) for value in words("require_signed") or [by_hosts]):
            return None
        signers = words("allowed_signers") or [DEFAULT_SIGNERS]
        starts = [_full(value) for value in words("signed_from")]
        first = starts[-1] if starts else None
        told = first if "signed_from" in values else None
        return cls(fleet, _path(signers[-1]), told, first, notes)

    def verify(self) -> Verified:
        """The fleet's last commit, once all is well with it and with those before it.

        Refused when it is not; FleetError when that could not be told.
        """
        with tempfile.TemporaryDirectory(prefix="nixherd-") as scratch:
            return self._verify(Path(scratch))

    def _verify(self, scratch: Path) -> Verified:
        repository = Repository.around(self.fleet)
        if repository is None:
            raise Refused(f"{self.fleet}: require_signed is set, but it is in no git repository; deploy a checkout")
        top = Path(repository.read("rev-parse", "--show-toplevel").stdout.removesuffix("\n"))
        head = repository.full_head()
        require_committed(str(self.fleet), repository.changed(["."]))
        signers = scratch / "allowed_signers"
        write_whole(signers, self._who_may(top, repository))
        record = Record.of(top, self.signers)
        start = self.told or record.revision or self.first
        history = History(repository, start)
        try:
            new = signatures.since(start, head, history.read)
        except signatures.NotFollowed as error:
            whose = "which signed_from names" if self.told or not record.revision else "which was proven here before"
            raise Refused(
                f"{self.fleet}: {error}, {whose}; nothing was changed. For an older one, or another line of commits, "
                "say signed_from=HASH of a commit that you vouch for"
            ) from None
        except FleetError as error:
            raise Refused(f"{self.fleet}: {error}; nothing was changed") from None
        self._require_signed(new, history.one(start), signers, scratch)
        is_shallow = repository.read("rev-parse", "--is-shallow-repository").stdout.strip() == "true"
        verified = self._as_flake(top, head, "&shallow=1" if is_shallow else "")
        if self.notes:
            record.note(head)
        return verified

    def _who_may(self, top: Path, repository: Repository) -> str:
        """The text of the signers' file. Refused for one that who pushes, or another user here, may write."""
        git_dir, common = (
            (repository.directory / repository.read("rev-parse", name).stdout.removesuffix("\n")).resolve()
            for name in ("--absolute-git-dir", "--git-common-dir")
        )
        main = [common.parent] if common.name == ".git" else []  # of which `top` may be another work tree
        place = self.signers.resolve()
        if any(place.is_relative_to(each) for each in (top.resolve(), git_dir, common, *main)):
            raise Refused(
                f"allowed_signers={self.signers} lies in the tree whose commits it is to judge; keep it outside, as "
                f"{DEFAULT_SIGNERS}"
            )
        try:
            with place.open(encoding="utf-8") as file:
                status, text = os.fstat(file.fileno()), file.read()
        except FileNotFoundError:
            raise Refused(
                f"{self.signers}: missing; write who may sign the fleet's commits into it, a line each: "
                'NAME namespaces="git" ssh-ed25519 AAAA…'
            ) from None
        except (OSError, UnicodeDecodeError) as error:
            raise FleetError(f"{self.signers}: cannot be read: {error}") from None
        if status.st_uid not in (os.geteuid(), 0) or stat.S_IMODE(status.st_mode) & 0o022:
            raise Refused(f"{self.signers}: others may change it; chown it to yourself and chmod go-w it")
        return text

    def _require_signed(self, new: Sequence[Commit], start: Commit | None, signers: Path, scratch: Path) -> None:
        made = signatures.times(new, start, int(time.time()))

        def problem(commit: Commit) -> str | None:
            if commit.signature is None:
                return "it is not signed"
            if not commit.signature.startswith("-----BEGIN SSH SIGNATURE-----"):
                return "it is signed, but not by an SSH key (git config gpg.format ssh)"
            if signatures.signer(commit.signature, commit.payload, signers, "git", made[commit.id], scratch) is None:
                return f"its signature is by nobody who may (by {self.signers}, at its time)"
            return None

        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            wrong = [(commit, why) for commit, why in zip(new, pool.map(problem, new), strict=True) if why]
        if wrong:
            commit, why = wrong[0]
            more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
            vouch = "" if start else ". Where signing began later, say signed_from=HASH of the commit before"
            raise Refused(f"{self.fleet}: commit {str(commit)!r}{more}: {why}; nothing was changed{vouch}")

    def _as_flake(self, top: Path, head: str, more: str) -> Verified:
        below = self.fleet.relative_to(top.resolve())
        where = f"&dir={quote(str(below))}" if below.parts else ""
        url = f"git+file://{quote(str(top.resolve()))}?rev={head}{where}{more}"
        try:
            metadata = json.loads(run(nix.flake_metadata(url), timeout=_TIMEOUT).stdout)
            revision, path = metadata["revision"], Path(metadata["path"]) / below
        except ProcessFailed as error:
            if not error.stderr:
                raise
            raise FleetError(f"{self.fleet}: {last_error(error.stderr)}") from error
        except (ValueError, KeyError, TypeError) as error:
            raise FleetError(f"{url}: nix flake metadata printed something unexpected ({error!r})") from error
        if revision != head:
            raise Refused(f"{url}: Nix took {revision} for it; nothing was changed")
        return Verified(head, url, path)


def _flag(value: Any) -> bool:
    written = {"none": False, "true": True, "false": False, "1": True, "0": False}
    return flag_of("require_signed", written.get(str(value).lower(), value))


def _full(value: Any) -> str:
    if not isinstance(value, str) or not FULL_HASH.fullmatch(value):
        raise Usage(f"signed_from={value} is not a whole hash of a commit; `git rev-parse HEAD` prints one")
    return value


def _path(value: Any) -> Path:
    if not isinstance(value, (str, Path)):
        raise Usage(f"allowed_signers={value} names no file")
    path = expanded(value)
    if not path.is_absolute():
        raise Usage(
            f"allowed_signers={value} would lie in the tree, or wherever this is run; name a file outside of it, as "
            f"{DEFAULT_SIGNERS}"
        )
    return path


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
    repository: Mapping[str, str]
    revision: str | None

    @classmethod
    def of(cls, top: Path, signers: Path) -> "Record":
        """FleetError when what is kept cannot be read: nothing would take its place but a guess."""
        repository = {"repository": str(top.resolve()), "allowed_signers": str(signers)}
        name = hashlib.sha256(json.dumps(repository, sort_keys=True).encode()).hexdigest()[:32]
        path = state_home() / ".proven" / f"{name}.json"
        try:
            revision = str(json.loads(path.read_text())["revision"])
            if not FULL_HASH.fullmatch(revision):
                raise ValueError(f"{revision!r} is not a whole hash")
        except FileNotFoundError:
            return cls(path, repository, None)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise FleetError(f"{path}: cannot be read ({error!r}); remove it, and say signed_from=HASH once") from None
        return cls(path, repository, revision)

    def note(self, revision: str) -> None:
        if revision != self.revision:
            write_whole(self.path, json.dumps({**self.repository, "revision": revision}, indent=2) + "\n")
