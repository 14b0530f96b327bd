"""git as the workflow needs it: is what we are to change committed, and one commit of exactly our files.

A tree may come from somebody else, and so may what its `.git` says. *Looking* (`Repository.read`) therefore runs
nothing that the repository names: git gets a closed environment, and every setting of the repository's own by which git
would start a program is overruled. *Committing* (`Repository.write`) is what the operator would type: their hooks,
filters, signatures and agents. Neither is led to another repository by the environment.

A directory is in a repository where a `.git` stands in it or above it. Whatever keeps git from using that one is a
failure, in git's own words; it is never taken for "no repository".
"""

import contextlib
import os
import posixpath
import stat
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from nixherd.base.errors import FleetError
from nixherd.base.files import is_temporary
from nixherd.base.process import Completed, run
from nixherd.base.reasons import failure
from nixherd.fleet.closed_git import answer, as_operator, looking, overruled

_IN_PROGRESS = {
    "MERGE_HEAD": "a merge",
    "CHERRY_PICK_HEAD": "a cherry-pick",
    "REVERT_HEAD": "a revert",
    "sequencer": "a cherry-pick or revert of several commits",
    "rebase-merge": "a rebase",
    "rebase-apply/applying": "a `git am`",
    "rebase-apply": "a rebase",
    "BISECT_LOG": "a bisect",
}
_LOCKS = ("index.lock", "HEAD.lock")
_FILES = (*_IN_PROGRESS, *_LOCKS, "refs/heads", "info/exclude")
_First = TypeVar("_First")
_Second = TypeVar("_Second")
_git = partial(run, closed=True, timeout=300.0, check=False)


@dataclass(frozen=True, slots=True)
class Repository:
    """A work tree; paths are relative to `directory`, which lies in it, `prefix` below its `top`.

    `files` are git's own files that tell how things stand, by name; `overruled` settings of the repository by what they
    are while we look. `index` is looked at instead of git's usual one.
    """

    directory: Path
    top: Path
    prefix: str
    files: Mapping[str, Path]
    overruled: Mapping[str, str] = field(default_factory=dict, repr=False)
    index: Path | None = None

    @classmethod
    def around(cls, directory: Path) -> "Repository | None":
        """The repository that the directory is in, None outside any.

        FleetError, with what git says to do, when there is one that git cannot or will not use: another one owns it
        (safe.directory), it is broken, its work tree is elsewhere, git is not installed.
        """
        top = top_of(directory)
        if top is None:
            return None
        words = [word for name in _FILES for word in ("--git-path", name)]
        found, settings = side_by_side(
            partial(_look, directory, "rev-parse", "--show-toplevel", "--show-prefix", *words),
            partial(_look, directory, "config", "--null", "--show-scope", "--list"),
        )
        answer(found, directory)
        try:
            is_top, prefix, *paths = found.stdout.removesuffix("\n").split("\n")
            files = {name: directory / path for name, path in zip(_FILES, paths, strict=True)}
        except ValueError:
            raise FleetError(f"{directory}: git rev-parse printed something unexpected: {found.stdout!r}") from None
        if is_top != str(top):
            remedy = "mend that repository (core.worktree?), or move what is not a repository away"
            raise FleetError(f"{top / '.git'}: git does not use it for {directory}, but what is at {is_top}; {remedy}")
        return cls(directory, top, prefix, files, overruled(answer(settings, directory).stdout))

    @property
    def to_top(self) -> str:
        """The way from the directory to the top of its work tree: `.`, `..`, `../..`."""
        return "/".join(".." for _ in Path(self.prefix).parts) or "."

    def read(
        self,
        *words: str,
        answers: Collection[int] | None = (0,),
        config: Mapping[str, str] | None = None,
        input: str | None = None,
    ) -> Completed:
        """Look at the repository: nothing of its own is run, nothing is fetched.

        `answers` are the statuses that mean something (None: all do); another one is a FleetError in git's words.
        `config` are settings for this call.
        """
        argv, env = looking(self.directory, {**self.overruled, **(config or {})}, words, self.index)
        return answer(_git(argv, env=env, input=input), self.directory, answers)

    def of_hook(self) -> "Repository":
        """The same with the index that a commit is made of whose hook we run in: not git's own for `git commit FILE`.

        githooks(5) has it in GIT_INDEX_FILE; one that is not beside git's own is not this repository's.
        """
        given = os.environ.get("GIT_INDEX_FILE")
        index = self.top / given if given else None
        if index is None or not index.is_file() or not index.parent.samefile(self.files["index.lock"].parent):
            return self
        return replace(self, index=index)

    def write(self, *words: str, answers: Collection[int] | None = (0,)) -> Completed:
        """Change the repository as its operator would: hooks, filters, signing and agents included.

        Without `answers` any status is one.
        """
        argv, env = as_operator(self.directory, words)
        return answer(_git(argv, env=env), self.directory, answers)

    def require_able(self) -> None:
        """FleetError while a commit is not possible: no author, or something unfinished."""
        for name, what in _IN_PROGRESS.items():
            if self.files[name].exists():
                how = "end it first (`git bisect reset`)" if name == "BISECT_LOG" else "finish or abort it first"
                raise FleetError(f"{self.directory}: {what} is going on; {how}")
        if self.write("var", "GIT_COMMITTER_IDENT", answers=None).status:
            remedy = "`git config user.name …` and `git config user.email …`"
            raise FleetError(f"{self.directory}: git does not know who commits; {remedy}")

    def changed(self, paths: Iterable[str]) -> list[str]:
        """Those of the paths that differ from the last commit, or are not in it; of submodules their own as well.

        A temporary file that a killed run of ours left is not one of them.
        """
        paths = list(paths)
        words = ("--porcelain=v1", "-z", "--no-renames", "--untracked-files=all")
        status, known = side_by_side(partial(self.read, "status", *words, "--", *paths), partial(self._known, paths))
        rows = [row for row in status.stdout.split("\0") if row]
        rows = [row for row in rows if not (row[:2] == "??" and is_temporary(row[3:]))]
        found = [posixpath.relpath(f"/{row[3:]}", f"/{self.prefix}") for row in rows]  # git says them from its top
        found += self._changed_unseen([each for each in known if each.is_overlooked and each.path not in found])
        submodules = [each.path for each in known if each.is_submodule]
        return found + [f"{each}/{path}" for each in submodules for path in self._changed_below(each)]

    def overlooked(self, paths: Sequence[str]) -> list[str]:
        """Those that git was told not to look at (assume-unchanged, skip-worktree): it would not commit them."""
        return [each.path for each in self._known(paths) if each.is_overlooked]

    def _known(self, paths: Sequence[str]) -> "list[_Known]":
        listed = self.read("ls-files", "-v", "--stage", "-z", "--", *paths).stdout.split("\0")[:-1]
        return [_Known.parse(row) for row in listed]

    def _changed_unseen(self, known: "Sequence[_Known]") -> list[str]:
        """Those that git was told not to look at (assume-unchanged, skip-worktree), and that are there and differ."""
        present = [each for each in known if (self.directory / each.path).is_file()]
        there = [each for each in present if "\n" not in each.path]  # git is asked line by line
        unknown = [each.path for each in present if "\n" in each.path]
        if not there:
            return unknown
        names = "".join(f"{each.path}\n" for each in there)
        hashes = self.read("hash-object", "--no-filters", "--stdin-paths", input=names).stdout.split()
        return unknown + [each.path for each, hash_ in zip(there, hashes, strict=True) if each.hash != hash_]

    def _changed_below(self, submodule: str) -> list[str]:
        """In a repository of its own: git would look at it by that one's settings."""
        directory = self.directory / submodule
        repository = Repository.around(directory) if os.path.lexists(directory / ".git") else None
        return repository.changed(["."]) if repository else []

    def tracked(self, paths: Iterable[str]) -> list[str]:
        """Those of the paths that git knows: committed, or added."""
        found = self.read("ls-files", "--cached", "-z", "--", *paths).stdout
        return [path for path in found.split("\0") if path]

    def full_head(self) -> str:
        """The whole hash of the last commit. FleetError where there is none."""
        done = self.read("rev-parse", "--verify", "--quiet", "HEAD^{commit}", answers=(0, 1))
        if done.status:
            raise FleetError(f"{self.directory}: has no commit yet")
        return done.stdout.strip()

    def untracked(self, pattern: str) -> list[str]:
        """The paths of files that a pattern of .gitignore's kind matches and git does not know, in all of its tree."""
        words = ("--others", "--ignored", "-z", f"--exclude={pattern}")
        found = self.read("ls-files", *words, "--", self.to_top).stdout
        return [path for path in found.split("\0") if path]

    def exclude(self, pattern: str) -> None:
        """Have git overlook files of this pattern, in this repository here; as far as that is possible."""
        path = self.files["info/exclude"]
        with contextlib.suppress(OSError):
            path.parent.mkdir(exist_ok=True)
            info = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
                with os.fdopen(os.open(path.name, flags, 0o644, dir_fd=info), "r+b", buffering=0) as file:
                    lines = (file.read() or b"").decode(errors="replace").split("\n")
                    if stat.S_ISREG(os.fstat(file.fileno()).st_mode) and pattern not in lines:
                        gap = "\n" if lines[-1] else ""
                        file.write(f"{gap}# what a killed nixherd may leave\n{pattern}\n".encode())
            finally:
                os.close(info)

    def reachable(self, *words: str) -> list[str]:
        """What git takes for the commits that are meant, as git-rev-list(1) takes words; nothing where it fails."""
        done = self.read("rev-list", *words, answers=(0, 1, 128))
        return [] if done.status else done.stdout.split()

    def contents(self, ids: Iterable[str], kind: str = "commit") -> dict[str, bytes]:
        """The contents of objects of a kind, by their whole hashes; what is not here, or of another kind, is left out.

        `ids` are hashes of commits, or names as gitrevisions(7) has them.
        """
        hashes = "".join(f"{id}\n" for id in ids)
        output = self.read("cat-file", "--batch", "--buffer", input=hashes).raw if hashes else b""
        found, at = {}, 0
        while at < len(output):
            end = output.index(b"\n", at)
            name, *found_kind, size = output[at:end].decode(errors="replace").split(" ")
            at = end + 1
            if size.isdecimal():  # not `NAME missing`
                if found_kind == [kind]:
                    found[name] = output[at : at + int(size)]
                at += int(size) + 1
        return found

    def ignored(self, paths: Sequence[str]) -> list[str]:
        names = "".join(f"./{path}\0" for path in paths)
        done = self.read("check-ignore", "-z", "--stdin", answers=(0, 1), input=names)
        return [path.removeprefix("./") for path in done.stdout.split("\0") if path]

    def add(self, paths: Sequence[str], *, content: bool = True) -> None:
        """Have git know these files; without `content` only that they are to be there, which runs nothing of theirs."""
        if content:
            self.write("add", "--", *paths)
        else:
            self.read("add", "--intent-to-add", "--", *paths)

    def drop(self, paths: Sequence[str]) -> None:
        """Have git know these files no more, which are gone; some it may not know."""
        if paths:
            self.read("rm", "--cached", "--quiet", "--ignore-unmatch", "--", *paths)

    def forget(self, paths: Sequence[str]) -> None:
        """Take what was added of these files back; the files stay. As far as that is possible."""
        if paths:  # without any, git would take all back
            self.read("reset", "--quiet", "--", *paths, answers=None)

    def committed(self, paths: Sequence[str], removed: Collection[str] = ()) -> bool:
        """Whether the last commit has these files as they are; git's index may be behind, and is not afterwards.

        Those that are `removed` are among them.
        """
        same = ("diff", "--quiet", "--no-ext-diff", "--no-textconv")
        if self.write(*same, "HEAD", "--", *paths, answers=(0, 1)).status:
            return False
        if there := [path for path in paths if path not in removed]:
            self.add(there)
        self.drop([*removed])
        return not self.write(*same, "--cached", "HEAD", "--", *paths, answers=(0, 1)).status

    def commit(self, paths: Sequence[str], message: str) -> str:
        """One commit of these files, which git knows, as they are; hooks are respected, what else is staged stays so.

        Returns its abbreviated hash. FleetError that says why it was refused.
        """
        done = self.write("commit", "--quiet", "--only", "--message", message, "--", *paths, answers=None)
        if done.status:
            raise failure("git commit", done.stderr or done.stdout, f"status {done.status}")
        return self.head()

    def write_ahead(self, files: Iterable[Path]) -> None:
        """Write what files hold as git's objects: a commit of the same contents has less to do then.

        Nothing depends on it: git itself does what is missing, and whatever a filter makes something else of.
        """
        names = "".join(f"{file}\n" for file in files if "\n" not in str(file))
        self.read("hash-object", "-w", "--no-filters", "--stdin-paths", input=names, answers=None)

    def head(self) -> str:
        """The abbreviated hash of the last commit."""
        return self.read("rev-parse", "--short", "HEAD").stdout.strip()

    def unlock(self, since: float) -> None:
        """Remove the locks that a git of ours left when it was killed: made after `since`, and no git is at work here.

        `since` is seconds since the epoch. Whoever calls this knows that our own git is gone.
        """
        found = [self.files[name] for name in _LOCKS if self.files[name].exists()]
        if not self.files["refs/heads"].is_symlink():
            found += self.files["refs/heads"].glob("**/*.lock")
        for lock in found:
            if lock.stat().st_mtime < since - 1 or time.time() < since:
                continue
            if not _someone_at_work(self.directory):
                lock.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class _Known:
    """A file that git knows, as `git ls-files -v --stage` lists it: tag, mode, hash, stage, path."""

    tag: str
    mode: str
    hash: str
    path: str

    @classmethod
    def parse(cls, row: str) -> "_Known":
        columns, _, path = row.partition("\t")
        tag, mode, hash_, _stage = columns.split(" ")
        return cls(tag, mode, hash_, path)

    @property
    def is_submodule(self) -> bool:
        return self.mode == "160000"

    @property
    def is_overlooked(self) -> bool:
        return not self.is_submodule and (self.tag.islower() or self.tag == "S")


def _look(directory: Path, *words: str) -> Completed:
    argv, env = looking(directory, {}, words)
    return _git(argv, env=env)


def side_by_side(first: Callable[[], _First], second: Callable[[], _Second]) -> tuple[_First, _Second]:
    """The answers to two questions that do not wait for each other."""
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(second)
        return first(), other.result()


def begin(directory: Path) -> None:
    """Make a repository of a directory of ours, so that a flake in it is one of git's; its files are to be known."""
    for words in (("init", "--quiet"), ("add", "--all", "--force", "--intent-to-add", ".")):
        answer(_look(directory, *words), directory)


def top_of(directory: Path) -> Path | None:
    """Return where the nearest `.git` is, in the directory or above it on the same file system, as git looks for it."""
    try:
        resolved = directory.resolve(strict=True)
        device = resolved.stat().st_dev
        for each in (resolved, *resolved.parents):
            if each.stat().st_dev != device:
                return None
            if os.path.lexists(each / ".git"):
                return each
    except OSError as error:
        raise FleetError(f"{directory}: cannot be looked at ({error.strerror})") from error
    return None


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
