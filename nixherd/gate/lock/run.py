"""A whole run: from where a branch is, through the gate, to where the update is wanted; again on a race.

Branches are read from where they are, here or at a remote, and moved only from where they were seen. Nothing is fetched
into a branch or a remote-tracking one: a commit that is looked at is here as an object alone.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from nixherd.base.errors import DeadlineExceeded, FleetError, Undecided, Usage
from nixherd.fleet.git import Repository
from nixherd.gate.lock.combine import Combiner, Outcome, Say, TreeGate
from nixherd.gate.lock.lockfile import LOCK_FILE, groups_of
from nixherd.gate.lock.place import Place, alone


class Moved(FleetError):
    """The branch is not where it was any more: somebody was faster."""


def current(repository: Repository) -> str:
    """The branch that is checked out. Usage when there is none."""
    done = repository.read("symbolic-ref", "--quiet", "--short", "HEAD", answers=(0, 1))
    if done.status:
        raise Usage(f"{repository.directory}: HEAD is not on a branch; say with --base BRANCH what to start from")
    return done.stdout.strip()


def require_name(repository: Repository, name: str) -> None:
    """Raise Usage for what cannot be the name of a branch."""
    if name.startswith("-") or repository.read("check-ref-format", "--branch", name, answers=None).status:
        raise Usage(f"{name!r} is not a name of a branch")


def checked_out(repository: Repository, branch: str) -> Path | None:
    """The work tree that has this branch; None for none."""
    found = repository.read("worktree", "list", "--porcelain", "-z").stdout
    for entry in found.split("\0\0"):
        rows = dict(row.partition(" ")[::2] for row in entry.strip("\0").split("\0"))
        if rows.get("branch") == f"refs/heads/{branch}":
            return Path(rows["worktree"])
    return None


@dataclass(frozen=True)
class Here:
    """The operator's own branches."""

    repository: Repository

    def tip(self, branch: str) -> str | None:
        done = self.repository.read("rev-parse", "--verify", "--quiet", f"refs/heads/{branch}^{{commit}}", answers=None)
        return done.stdout.strip() or None

    def move(self, branch: str, old: str | None, new: str) -> None:
        """To this commit, if it is where it was. One that is checked out moves with its files, as git merge does it.

        Moved when it is not; FleetError with git's words when the files there are in the way.
        """
        tree = checked_out(self.repository, branch)
        if tree is None:
            words = ("update-ref", "-m", "nixherd lock update", f"refs/heads/{branch}", new, old or "")
            done = self.repository.write(*words, answers=None)
        else:
            if self.tip(branch) != old:
                raise Moved(f"{branch} moved")
            there = Repository.around(tree)
            assert there is not None
            done = there.write("merge", "--quiet", "--ff-only", new, answers=None)
        now = self.tip(branch)
        if now and follows(self.repository, now, new):  # whatever the answer was
            return
        if now != old:
            raise Moved(f"{branch} moved")
        raise FleetError(f"{branch}: cannot be moved: {_reason(done.stderr)}")

    def remove(self, branch: str, tip: str) -> None:
        """If it is there still; as far as that is possible."""
        self.repository.write("update-ref", "-d", f"refs/heads/{branch}", tip, answers=None)


@dataclass(frozen=True)
class Remote:
    """A remote by its name."""

    repository: Repository
    name: str

    def __post_init__(self) -> None:
        known = self.repository.read("remote").stdout.split()
        if self.name not in known:
            there = f"; there is {', '.join(known)}" if known else ""
            what = f"no remote is called {self.name}{there}"
            raise Usage(f"{self.repository.directory}: {what}; `git remote add`, or --remote NAME")

    def tip(self, branch: str) -> str | None:
        """Where the branch is there, with that commit brought here; None where the branch does not exist."""
        ref = f"refs/heads/{branch}"
        done = self.repository.write("ls-remote", "--", self.name, ref, answers=None)
        if done.status:
            raise FleetError(f"{self.name}: cannot be asked for {branch}: {_reason(done.stderr)}")
        found = [line.split("\t")[0] for line in done.stdout.splitlines() if line.endswith(f"\t{ref}")]
        if not found:
            return None
        if self.repository.read("cat-file", "-e", f"{found[0]}^{{commit}}", answers=None).status:
            words = ("fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--refmap=", "--", self.name, ref)
            done = self.repository.write(*words, answers=None)
            if done.status or self.repository.read("cat-file", "-e", f"{found[0]}^{{commit}}", answers=None).status:
                raise FleetError(f"{self.name}: {branch} cannot be fetched: {_reason(done.stderr)}")
        return found[0]

    def move(self, branch: str, old: str | None, new: str) -> None:
        """Push this commit, if the branch is at `old` still: others may have moved it back, too.

        Moved when others were faster; FleetError with the remote's words when it takes no push; Undecided when nobody
        can tell what became of it, or where the remote says that it took the push and shows nothing of it.
        """
        ref = f"refs/heads/{branch}"
        lease = f"--force-with-lease={ref}:{old or ''}"
        try:
            done = self.repository.write("push", "--quiet", lease, "--", self.name, f"{new}:{ref}", answers=None)
            reason, taken = _reason(done.stderr), done.status == 0
        except DeadlineExceeded as error:
            reason, taken = str(error), False
        ask = f"`git ls-remote {self.name} {branch}` tells, once it answers"
        try:
            now = self.tip(branch)
        except FleetError as error:
            why = "" if taken else f" (it ended with: {reason})"
            raise Undecided(f"{self.name}: {new} was pushed to {branch}{why}, and then {error}; {ask}") from error
        if now and follows(self.repository, now, new):  # whatever the answer was
            return
        if now != old:
            raise Moved(f"{self.name}/{branch} moved")
        if taken:
            what = f"took the push of {new} to {branch}, as it says, and {branch} is where it was"
            raise Undecided(f"{self.name}: {what}; does it push elsewhere (remote.*.pushurl), is there a review first?")
        raise FleetError(f"{self.name}: {branch} takes no push: {reason}; is it protected, may this user write there?")


def follows(repository: Repository, commit: str, other: str) -> bool:
    """Whether a commit is another one, or has it in its history as far as that is here."""
    return not repository.read("merge-base", "--is-ancestor", other, commit, answers=None).status


def require_ours(repository: Repository, branch: str, tip: str | None, base: str) -> None:
    """FleetError when a branch that is to be made anew has anything else than an update of the lock file."""
    if tip is None or follows(repository, base, tip):
        return
    done = repository.read("diff", "--name-only", "-z", f"{base}...{tip}", answers=None)
    others = [path for path in done.stdout.split("\0") if path and path != f"{repository.prefix}{LOCK_FILE}"]
    if done.status or others:
        what = f"has changes to {others[0]}" if others else "has a history of its own"
        raise FleetError(f"the branch {branch} exists, and {what}; merge or delete it, or say --branch NAME")


def _reason(stderr: str) -> str:
    lines = [line.removeprefix("remote: ").strip() for line in stderr.splitlines() if not line.startswith("hint:")]
    return " / ".join([line for line in lines if line][:3])[:600] or "git gave no reason"


# The run

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


def update(fleet: Path, request: Wanted, gate: TreeGate, is_signed: Callable[[Path], bool], say: Say) -> Ended:
    """`is_signed` says of the fleet's directory whether its commits have to be signed.

    Raises Usage, FleetError; the operator's files are as they were, unless their own branch was to be merged into.
    """
    repository = Repository.around(fleet)
    if repository is None:
        raise Usage(f"{fleet}: is not in a git repository; an update is a commit")
    base = request.base or request.merge_into or current(repository)
    if request.branch in (base, request.merge_into):
        raise Usage(f"--branch {request.branch}: the update needs a branch of its own")
    for name in filter(None, (request.branch, base, request.merge_into)):
        require_name(repository, name)
    if request.merge_into and request.merge_into != base:
        raise Usage(f"--base {base}: what is merged into {request.merge_into} starts from there; leave --base out")
    remote = Remote(repository, request.remote or _remote_of(repository, base)) if request.push else None
    if remote is None and checked_out(repository, base) and repository.changed([LOCK_FILE]):
        raise FleetError(
            f"{fleet / LOCK_FILE}: has changes that are not committed; commit it, or `git restore {LOCK_FILE}`"
        )
    if tree := checked_out(repository, request.branch):
        raise FleetError(f"the branch {request.branch} is checked out in {tree}; leave it there, or say --branch NAME")
    until = math.inf if request.deadline is None else time.monotonic() + request.deadline

    def combined(place: Place, start: str, where: str) -> Outcome:
        groups = groups_of(place.lock(where), request.groups, request.only)
        return Combiner(place, gate, start, where, is_signed(place.fleet), say, until).update(groups)

    with alone(repository) as directory:
        for left in reversed(range(request.tries)):
            try:
                return _once(repository, remote, directory, request, base, combined)
            except Moved as error:
                if not left:
                    tries = f"{request.tries} times while the gate ran"
                    raise FleetError(f"{error}, {tries}; run it again later") from error
                say(f"{error} meanwhile: once more on that")
    raise AssertionError


def _once(
    repository: Repository,
    remote: Remote | None,
    directory: Path,
    request: Wanted,
    base: str,
    combined: Callable[[Place, str, str], Outcome],
) -> Ended:
    here = Here(repository)
    where = f"{remote.name}/{base}" if remote else base
    start = (remote or here).tip(base)
    if start is None:
        raise FleetError(f"branch {where} does not exist")
    local = here.tip(request.branch)
    require_ours(repository, request.branch, local, start)
    if local and request.merge_into and follows(repository, start, local):
        here.remove(request.branch, local)  # of a run that was killed once it was merged
        local = None
    theirs = remote.tip(request.branch) if remote and not request.merge_into else None
    require_ours(repository, f"{remote.name}/{request.branch}" if remote else "", theirs, start)
    with Place.made(repository, directory, start) as place:
        place.require_able()
        outcome = combined(place, start, where)
        if outcome.commit is None:
            return Ended(outcome, where, None)
        here.move(request.branch, local, outcome.commit)  # from here on it is held by a name
    if not remote and not request.merge_into:
        return Ended(outcome, where, request.branch)
    if not request.merge_into:
        assert remote
        remote.move(request.branch, theirs, outcome.commit)
        return Ended(outcome, where, f"{remote.name}/{request.branch}")
    (remote or here).move(request.merge_into, start, outcome.commit)
    here.remove(request.branch, outcome.commit)
    return Ended(outcome, where, where)


def _remote_of(repository: Repository, branch: str) -> str:
    done = repository.read("config", "--get", f"branch.{branch}.remote", answers=(0, 1))
    name = done.stdout.strip()
    return name if name and name != "." else "origin"
