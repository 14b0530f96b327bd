"""git as the workflow needs it: is what we are to change committed, and one commit of exactly our files."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nixherd.errors import FleetError, ProcessFailed
from nixherd.process import Completed, run

_IN_PROGRESS = {
    "MERGE_HEAD": "a merge",
    "CHERRY_PICK_HEAD": "a cherry-pick",
    "REVERT_HEAD": "a revert",
    "rebase-merge": "a rebase",
    "rebase-apply": "a rebase",
}
_LOCKS = ("index.lock", "HEAD.lock")
_QUIET = {"LC_ALL": "C.UTF-8", "GIT_TERMINAL_PROMPT": "0", "GIT_LITERAL_PATHSPECS": "1", "GIT_OPTIONAL_LOCKS": "0"}


@dataclass(frozen=True, slots=True)
class Repository:
    """A work tree; paths are relative to `directory`, which lies in it, `prefix` below its top.

    `own` are git's own files that tell how things stand, by name.
    """

    directory: Path
    prefix: str
    own: Mapping[str, Path]

    @classmethod
    def around(cls, directory: Path) -> "Repository | None":
        """The repository that the directory is in, None outside any."""
        names = (*_IN_PROGRESS, *_LOCKS, "refs/heads")
        asked = [word for name in names for word in ("--git-path", name)]
        done = _git(directory, "rev-parse", "--is-inside-work-tree", "--show-prefix", *asked, check=False)
        if done.status or not done.stdout.startswith("true\n"):
            return None
        _, prefix, *paths = done.stdout.splitlines()
        return cls(directory, prefix, {name: directory / path for name, path in zip(names, paths, strict=True)})

    def git(self, *words: str, check: bool = True) -> Completed:
        return _git(self.directory, *words, check=check)

    def require_able(self) -> None:
        """FleetError while a commit is not possible: no author, or something unfinished."""
        for name, what in _IN_PROGRESS.items():
            if self.own[name].exists():
                raise FleetError(f"{self.directory}: {what} is going on; finish or abort it first")
        if self.git("var", "GIT_COMMITTER_IDENT", check=False).status:
            raise FleetError(
                f"{self.directory}: git does not know who commits; "
                "`git config user.name …` and `git config user.email …`"
            )

    def changed(self, paths: Iterable[str]) -> list[str]:
        """Those of the paths that differ from the last commit, or are not in it."""
        rows = self.git("status", "--porcelain=v1", "-z", "--no-renames", "--untracked-files=all", "--", *paths).stdout
        return [row[3:].removeprefix(self.prefix) for row in rows.split("\0") if row]

    def full_head(self) -> str:
        """The whole hash of the last commit. FleetError where there is none."""
        done = self.git("rev-parse", "--verify", "--quiet", "HEAD^{commit}", check=False)
        if done.status:
            raise FleetError(f"{self.directory}: there is no commit yet")
        return done.stdout.strip()

    def reachable(self, *words: str) -> list[str]:
        """What git says of which commits there are, as git-rev-list(1) takes it; nothing where it fails."""
        done = self.git("--no-replace-objects", "rev-list", *words, check=False)
        return [] if done.status else done.stdout.split()

    def contents(self, ids: Iterable[str]) -> dict[str, bytes]:
        """The contents of the commits with these whole hashes; those that are not here, or no commits, are left out."""
        asked = "".join(f"{id}\n" for id in ids)
        if not asked:
            return {}
        said = _git(self.directory, "--no-replace-objects", "cat-file", "--batch", "--buffer", input=asked).raw
        found, at = {}, 0
        while at < len(said):
            end = said.index(b"\n", at)
            name, kind, *size = said[at:end].decode(errors="replace").split(" ")
            at = end + 1
            if size:
                if kind == "commit":
                    found[name] = said[at : at + int(size[0])]
                at += int(size[0]) + 1
        return found

    def ignored(self, paths: Sequence[str]) -> list[str]:
        done = self.git("check-ignore", "-z", "--", *paths, check=False)
        return [path for path in done.stdout.split("\0") if path]

    def add(self, paths: Sequence[str]) -> None:
        self.git("add", "--", *paths)

    def commit(self, paths: Sequence[str], message: str) -> str:
        """One commit of these files, which git knows, as they are; hooks are respected, what else is staged stays so.

        Returns its abbreviated hash. FleetError with the last words of what refused it.
        """
        done = self.git("commit", "--quiet", "--only", "--message", message, "--", *paths, check=False)
        if done.status:
            said = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
            raise FleetError(f"git commit: {' / '.join(said[-2:]) or f'status {done.status}'}")
        return self.head()

    def head(self) -> str:
        """The abbreviated hash of the last commit."""
        return self.git("rev-parse", "--short", "HEAD").stdout.strip()

    def unlock(self, since: float) -> None:
        """Remove the locks that a git of ours left when it was killed: made after `since`, and no git is at work here.

        `since` is seconds since the epoch. Whoever calls this knows that our own git is gone.
        """
        found = [self.own[name] for name in _LOCKS if self.own[name].exists()]
        found += self.own["refs/heads"].glob("**/*.lock")
        for lock in found:
            if lock.stat().st_mtime < since - 1 or time.time() < since:
                continue
            if not _someone_at_work(self.directory):
                lock.unlink(missing_ok=True)


def _someone_at_work(directory: Path) -> bool:
    """Whether a process called git runs in the work tree, or may."""
    top = directory.resolve()
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        try:
            if not (process / "comm").read_text().startswith("git"):
                continue
            where = (process / "cwd").readlink()
        except OSError:
            continue
        if where == top or top in where.parents or where in top.parents:
            return True
    return False


def _git(directory: Path, *words: str, check: bool = True, input: str | None = None) -> Completed:
    try:
        return run(["git", "-C", directory, *words], env=_QUIET, timeout=300, check=check, input=input)
    except ProcessFailed as error:
        if error.status == 127:
            raise FleetError("git: not on PATH; install it, or say that nothing is to be committed") from error
        raise
