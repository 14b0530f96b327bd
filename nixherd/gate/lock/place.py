"""Where an update is made: a git work tree of ours beside the operator's, which is not touched.

It is below the state directory, one per repository, and made anew by each run: what a killed one left half done is in
none. The commits are in the operator's repository from the moment that they are made.
"""

import hashlib
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from nixherd.base.errors import DeadlineExceeded, FleetError, ProcessFailed
from nixherd.base.files import lock, state_home, write_whole
from nixherd.base.process import run
from nixherd.base.reasons import reason
from nixherd.base.terminal import visible
from nixherd.fleet.git import Repository
from nixherd.gate.lock.lockfile import LOCK_FILE, Group, Lock
from nixherd.nix.commands import NIX
from nixherd.nix.errors import innermost_error

_SIGNED = b"-----BEGIN SSH SIGNATURE-----"
_TIMEOUT = 1800.0  # seconds
_LONGEST = 300  # characters


class CommitRefused(FleetError):
    """git made no commit: a hook, or what signs, has refused it."""


@contextmanager
def alone(repository: Repository) -> Iterator[Path]:
    """The directory that a run has for itself. FleetError while another run has it."""
    common = (repository.directory / repository.read("rev-parse", "--git-common-dir").stdout.strip()).resolve()
    directory = state_home() / ".lock-update" / hashlib.sha256(os.fsencode(common)).hexdigest()[:32]
    try:
        held = lock(directory / "lock")
    except BlockingIOError:
        raise FleetError(f"{repository.directory}: another `lock update` is at work on this repository") from None
    began = directory / "began"
    try:
        if began.exists():  # it was killed, and so was its git
            repository.unlock(began.stat().st_mtime)
        write_whole(began, f"{time.time()}\n")
        try:
            yield directory
        except Exception:  # not when we are told to stop: git may have been, too, in the middle of something
            began.unlink()
            raise
        began.unlink()
    finally:
        os.close(held)


@dataclass
class Place:
    """The work tree at `tree`, of a repository of the operator's."""

    repository: Repository
    tree: Path

    @classmethod
    @contextmanager
    def made(cls, repository: Repository, directory: Path, commit: str) -> Iterator["Place"]:
        """At this commit; gone afterwards."""
        place = cls(repository, directory / "tree")
        place.remove()
        words = ("worktree", "add", "--quiet", "--force", "--force", "--detach", str(place.tree), commit)
        try:
            done = repository.write(*words, answers=None)
            if not (place.tree / ".git").exists():
                raise FleetError(f"{repository.directory}: git worktree: {done.stderr.strip()[:300]}")
            place.at(commit)  # whatever a hook said to that
            yield place
        finally:
            place.remove()

    def remove(self) -> None:
        shutil.rmtree(self.tree, ignore_errors=True)  # first: git leaves one that lost its .git alone
        self.repository.write("worktree", "remove", "--force", "--force", str(self.tree), answers=None)

    @property
    def fleet(self) -> Path:
        """The fleet's directory in it."""
        return self.tree / self.repository.prefix

    @property
    def git(self) -> Repository:
        found = Repository.around(self.fleet) if self.fleet.is_dir() else None
        if found is None or found.top != self.tree.resolve():  # never one that is around it
            raise FleetError(f"{self.tree}: is not a work tree of git any more; whatever the gate runs removed it")
        return found

    def require_able(self) -> None:
        """FleetError, about the operator's repository, while a commit is not possible."""
        try:
            self.git.require_able()
        except FleetError as error:
            raise FleetError(str(error).replace(str(self.fleet), str(self.repository.directory))) from None

    def at(self, commit: str) -> None:
        """Have the files of this commit there and no others, whatever was done to them."""
        git = self.git
        done = git.write("checkout", "--quiet", "--force", "--detach", commit, answers=None)
        differing = self.differs()
        if git.full_head() != commit or (done.status and differing):  # the status may be a hook's alone
            raise FleetError(f"{self.tree}: git checkout: {done.stderr.strip()[:300] or f'status {done.status}'}")
        if differing:
            what = "is not as it is committed once it is checked out (line ends, a filter?)"
            raise FleetError(f"{differing[0]}: {what}; `git add --renormalize .`, and commit it")
        git.write("clean", "--quiet", "-ffdx", "--", str(self.tree), answers=None)

    def lock(self, what: str) -> Lock:
        """The lock file there; `what` says for people of what it is."""
        where = f"{self.repository.prefix}{LOCK_FILE} of {what}"
        if (self.fleet / LOCK_FILE).is_symlink():  # written to, it would be another file
            raise FleetError(f"{where}: is a symbolic link; Nix wants a file there")
        try:
            return Lock.parse((self.fleet / LOCK_FILE).read_text(encoding="utf-8"), where)
        except FileNotFoundError:
            raise FleetError(f"{where}: missing; `nix flake lock` there, and commit it") from None
        except (OSError, UnicodeDecodeError) as error:
            raise FleetError(f"{where}: cannot be read: {error}") from None

    def write(self, locked: Lock) -> None:
        (self.fleet / LOCK_FILE).write_text(locked.text(), encoding="utf-8")

    def commit(self, message: str, *, signed: bool) -> str:
        """One commit of the lock file; its whole hash. FleetError when it is not what was wanted.

        The operator's settings say whether and with what it is signed; `signed`: it has to be, by an SSH key.
        """
        git = self.git
        before = git.full_head()
        options = ["-c", "commit.gpgsign=true", "-c", "gpg.format=ssh"] if signed else []
        done = git.write(*options, "commit", "--quiet", "--only", "--message", message, "--", LOCK_FILE, answers=None)
        if done.status:
            why = reason(done.stderr or done.stdout, f"status {done.status}")
            raise CommitRefused(f"git commit: {'the fleet requires signatures: ' if signed else ''}{why}")
        commit = git.full_head()
        content = git.contents([commit])[commit]
        if git.read("rev-list", "--parents", "--max-count=1", commit).stdout.split() != [commit, before]:
            raise FleetError(f"git commit: made {commit[:12]}, which does not follow {before[:12]} alone (a hook?)")
        if self.differs():
            raise FleetError(f"git commit: {commit[:12]} is not what was to be committed (a hook?)")
        if signed and _SIGNED not in content:
            remedy = "`git config gpg.format ssh`, `git config user.signingkey …`"
            raise FleetError(
                f"git commit: the fleet requires commits signed by an SSH key, which this is not; {remedy}"
            )
        return commit

    def differs(self) -> list[str]:
        """The files that git knows, and that are not as in the last commit."""
        found = self.git.read("status", "--porcelain=v1", "-z", "--no-renames", "--untracked-files=no").stdout
        return [row[3:] for row in found.split("\0") if row]

    def update_inputs(self, groups: Sequence[Group]) -> Mapping[str, str]:
        """Have Nix write today's revisions of the groups' inputs into flake.lock; why not, by input that it could not.

        Such an input, and its group with it, is as it was, and the rest goes on.
        """
        everything = [input for group in groups for input in group.inputs]
        if not everything or not self._update(everything):
            return {}
        # which of them it is; what was fetched already is not fetched again
        unknown: dict[str, str] = {}
        for group in groups:
            before = (self.fleet / LOCK_FILE).read_bytes()
            failed = {input: why for input in group.inputs if (why := self._update([input]))}
            if failed:
                (self.fleet / LOCK_FILE).write_bytes(before)
                unknown |= failed
        return unknown

    def _update(self, inputs: Sequence[str]) -> str | None:
        """Why these cannot be updated, together; None once they are."""
        options = ["--option", "accept-flake-config", "false"]
        return _refusal([*NIX, *options, "flake", "update", "--flake", str(self.fleet), *inputs])

    def why_inconsistent(self) -> str | None:
        """Why Nix would have to change the lock file of the flake here; None where it takes it as it is."""
        return _refusal([*NIX, "flake", "metadata", "--json", "--no-update-lock-file", str(self.fleet)])


def _refusal(argv: Sequence[str]) -> str | None:
    """Why Nix does not do it, shortened; None when it does. ProcessFailed without Nix."""
    try:
        run(argv, timeout=_TIMEOUT)
    except DeadlineExceeded as error:
        return str(error)
    except ProcessFailed as error:
        if error.status in (126, 127):
            raise
        return visible(innermost_error(error.stderr) or str(error))[:_LONGEST]
    return None
