"""A whole run: from where a branch is, through the gate, to where the update is wanted; again on a race."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from nixherd.errors import FleetError, Usage
from nixherd.fleet.git import Repository
from nixherd.gate.lock import branches
from nixherd.gate.lock.branches import Here, Moved, Remote
from nixherd.gate.lock.combine import Combiner, Outcome, Say
from nixherd.gate.lock.groups import groups_of
from nixherd.gate.lock.lockfile import FILE
from nixherd.gate.lock.place import Place, alone
from nixherd.gate.lock.verdicts import TreeGate

BRANCH = "flake-lock-update"


@dataclass(frozen=True)
class Wanted:
    """What was asked for. `base` None: `merge_into`, else the branch that is checked out.

    After `deadline` seconds the gate is asked nothing more, and what has passed by then goes on.
    """

    branch: str = BRANCH
    base: str | None = None
    merge_into: str | None = None
    push: bool = False
    remote: str | None = None
    groups: Sequence[str] = ()
    only: Sequence[str] = ()
    tries: int = 5
    deadline: float | None = None


@dataclass(frozen=True)
class Ended:
    """What became of it, as it was read back: `at` names where the commit is now, None where there is none."""

    outcome: Outcome
    base: str
    at: str | None


def update(fleet: Path, wanted: Wanted, gate: TreeGate, is_signed: Callable[[Path], bool], say: Say) -> Ended:
    """`is_signed` says of the fleet's directory whether its commits have to be signed.

    Raises Usage, FleetError; the operator's files are as they were, unless their own branch was to be merged into.
    """
    repository = Repository.around(fleet)
    if repository is None:
        raise Usage(f"{fleet}: is in no git repository; an update is a commit")
    base = wanted.base or wanted.merge_into or branches.current(repository)
    if wanted.branch in (base, wanted.merge_into):
        raise Usage(f"--branch {wanted.branch}: the update needs a branch of its own")
    for name in filter(None, (wanted.branch, base, wanted.merge_into)):
        branches.require_name(repository, name)
    if wanted.merge_into and wanted.merge_into != base:
        raise Usage(f"--base {base}: what is merged into {wanted.merge_into} starts from there; leave --base out")
    remote = Remote(repository, wanted.remote or _remote_of(repository, base)) if wanted.push else None
    if remote is None and branches.checked_out(repository, base) and repository.changed([FILE]):
        raise FleetError(f"{fleet / FILE}: has changes that are not committed; commit it, or `git restore {FILE}`")
    if tree := branches.checked_out(repository, wanted.branch):
        raise FleetError(f"the branch {wanted.branch} is checked out in {tree}; leave it there, or say --branch NAME")
    until = math.inf if wanted.deadline is None else time.monotonic() + wanted.deadline
    with alone(repository) as directory:
        for left in reversed(range(wanted.tries)):
            try:
                return _once(repository, remote, directory, wanted, base, gate, is_signed, say, until)
            except Moved as error:
                if not left:
                    raise FleetError(f"{error}, {wanted.tries} times while the gate ran; run it again later") from error
                say(f"{error} meanwhile: once more on that")
    raise AssertionError


def _once(
    repository: Repository,
    remote: Remote | None,
    directory: Path,
    wanted: Wanted,
    base: str,
    gate: TreeGate,
    is_signed: Callable[[Path], bool],
    say: Say,
    until: float,
) -> Ended:
    here = Here(repository)
    where = f"{remote.name}/{base}" if remote else base
    start = (remote or here).tip(base)
    if start is None:
        raise FleetError(f"there is no branch {where}")
    local = here.tip(wanted.branch)
    branches.require_ours(repository, wanted.branch, local, start)
    if local and wanted.merge_into and branches.follows(repository, start, local):
        here.remove(wanted.branch, local)  # of a run that was killed once it was merged
        local = None
    theirs = remote.tip(wanted.branch) if remote and not wanted.merge_into else None
    branches.require_ours(repository, f"{remote.name}/{wanted.branch}" if remote else "", theirs, start)
    with Place.made(repository, directory, start) as place:
        place.require_able()
        groups = groups_of(place.lock(where), wanted.groups, wanted.only)
        combiner = Combiner(place, gate, start, where, is_signed(place.fleet), say, until)
        outcome = combiner.update(groups)
        if outcome.commit is None:
            return Ended(outcome, where, None)
        here.move(wanted.branch, local, outcome.commit)  # from here on it is held by a name
    if not remote and not wanted.merge_into:
        return Ended(outcome, where, wanted.branch)
    if not wanted.merge_into:
        assert remote
        remote.move(wanted.branch, theirs, outcome.commit)
        return Ended(outcome, where, f"{remote.name}/{wanted.branch}")
    (remote or here).move(wanted.merge_into, start, outcome.commit)
    here.remove(wanted.branch, outcome.commit)
    return Ended(outcome, where, where)


def _remote_of(repository: Repository, branch: str) -> str:
    done = repository.read("config", "--get", f"branch.{branch}.remote", answers=(0, 1))
    name = done.stdout.strip()
    return name if name and name != "." else "origin"
