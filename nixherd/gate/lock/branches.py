"""Branches here and at a remote: read from where they are, moved only from where they were seen.

Nothing is fetched into a branch or a remote-tracking one: a commit that is looked at is here as an object alone.
"""

from dataclasses import dataclass
from pathlib import Path

from nixherd.errors import DeadlineExceeded, FleetError, Undecided, Usage
from nixherd.fleet.git import Repository
from nixherd.gate.lock.lockfile import FILE


class Moved(FleetError):
    """The branch is not where it was any more: somebody was faster."""


def current(repository: Repository) -> str:
    """The branch that is checked out. Usage when there is none."""
    done = repository.read("symbolic-ref", "--quiet", "--short", "HEAD", answers=(0, 1))
    if done.status:
        raise Usage(f"{repository.directory}: HEAD is on no branch; say with --base BRANCH what the update starts from")
    return done.stdout.strip()


def require_name(repository: Repository, name: str) -> None:
    """Usage for what is no name of a branch."""
    if name.startswith("-") or repository.read("check-ref-format", "--branch", name, answers=None).status:
        raise Usage(f"{name!r} is no name of a branch")


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
        raise FleetError(f"{branch}: cannot be moved: {_said(done.stderr)}")

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
            raise Usage(
                f"{self.repository.directory}: no remote is called {self.name}{there}; "
                "`git remote add`, or --remote NAME"
            )

    def tip(self, branch: str) -> str | None:
        """Where the branch is there, with that commit brought here; None where there is no such branch."""
        ref = f"refs/heads/{branch}"
        done = self.repository.write("ls-remote", "--", self.name, ref, answers=None)
        if done.status:
            raise FleetError(f"{self.name}: cannot be asked for {branch}: {_said(done.stderr)}")
        found = [line.split("\t")[0] for line in done.stdout.splitlines() if line.endswith(f"\t{ref}")]
        if not found:
            return None
        if self.repository.read("cat-file", "-e", f"{found[0]}^{{commit}}", answers=None).status:
            words = ("fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--refmap=", "--", self.name, ref)
            done = self.repository.write(*words, answers=None)
            if done.status or self.repository.read("cat-file", "-e", f"{found[0]}^{{commit}}", answers=None).status:
                raise FleetError(f"{self.name}: {branch} cannot be fetched: {_said(done.stderr)}")
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
            said, taken = _said(done.stderr), done.status == 0
        except DeadlineExceeded as error:
            said, taken = str(error), False
        ask = f"`git ls-remote {self.name} {branch}` tells, once it answers"
        try:
            now = self.tip(branch)
        except FleetError as error:
            why = "" if taken else f" (it ended with: {said})"
            raise Undecided(f"{self.name}: {new} was pushed to {branch}{why}, and then {error}; {ask}") from error
        if now and follows(self.repository, now, new):  # whatever the answer was
            return
        if now != old:
            raise Moved(f"{self.name}/{branch} moved")
        if taken:
            raise Undecided(
                f"{self.name}: took the push of {new} to {branch}, as it says, and {branch} is where it was; does the "
                "remote push to another place than it is read from (remote.*.pushurl), does a review come first?"
            )
        raise FleetError(f"{self.name}: {branch} takes no push: {said}; is it protected, may this user write there?")


def follows(repository: Repository, commit: str, other: str) -> bool:
    """Whether a commit is another one, or has it in its history as far as that is here."""
    return not repository.read("merge-base", "--is-ancestor", other, commit, answers=None).status


def require_ours(repository: Repository, branch: str, tip: str | None, base: str) -> None:
    """FleetError when a branch that is to be made anew has anything else than an update of the lock file."""
    if tip is None or follows(repository, base, tip):
        return
    done = repository.read("diff", "--name-only", "-z", f"{base}...{tip}", answers=None)
    others = [path for path in done.stdout.split("\0") if path and path != f"{repository.prefix}{FILE}"]
    if done.status or others:
        what = f"has changes to {others[0]}" if others else "has a history of its own"
        raise FleetError(f"the branch {branch} exists, and {what}; merge or delete it, or say --branch NAME")


def _said(stderr: str) -> str:
    lines = [line.removeprefix("remote: ").strip() for line in stderr.splitlines() if not line.startswith("hint:")]
    return " / ".join([line for line in lines if line][:3])[:600] or "git gave no reason"
