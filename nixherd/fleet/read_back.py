"""What the last commit has, read back: git's hooks may change files on their way into it.

A Nix file may have another text that says the same, as formatters make it, and a document any; of every other file the
bytes count. A filter that git itself applies (line ends, git-crypt) is not a hook.
"""

import hashlib
import posixpath
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from nixherd.base.errors import Altered, FleetError
from nixherd.base.process import run
from nixherd.fleet.git import Repository, side_by_side
from nixherd.fleet.load import require_exactly
from nixherd.fleet.models import DEFINITIONS, HOSTS
from nixherd.fleet.tree import Tree

_DOCUMENTS = (".md", ".markdown")
_RULES = ".sops.yaml"
_ENCRYPTED = b"ENC[AES256_GCM,"
_FILES = ("100644", "100755")
_NOTHING = "000000"  # the mode of what the commit removes
_Entry = tuple[str, str]  # mode and object
_PARSED = 60.0  # seconds


@dataclass(frozen=True)
class Committed:
    """The commit that is HEAD, called `hash`. `scratch` is for evaluations, `staged` what each file was to be."""

    tree: Tree
    repository: Repository
    hash: str
    scratch: Path
    staged: Mapping[str, Path | None]

    def require_as_made(self) -> tuple[str, ...]:
        """Altered where the commit, or a file in the tree, is not as it was made; return what is to be said besides."""
        try:
            of_commit, branch = side_by_side(
                partial(self.repository.read, "diff-tree", "-r", "-z", "--root", "--no-commit-id", "HEAD"),
                partial(self.repository.read, "symbolic-ref", "--quiet", "HEAD", answers=(0, 1)),
            )
            fields = of_commit.stdout.split("\0")[:-1]
            entries = {path: row.split(" ") for row, path in zip(fields[::2], fields[1::2], strict=True)}
            changed = {path: (mode, id) for path, (_, mode, _, id, _) in entries.items()}
            return (*self._of_files(self._ids(changed)), *self._of_others(changed), *self._of_branch(branch.status))
        except FleetError as error:
            if isinstance(error, Altered):
                raise
            show = f"`git -C {shlex.quote(str(self.tree.root))} show {self.hash}`"
            raise Altered(f"commit {self.hash} is made, but not read back: {error}; look at it, {show}") from error

    def _of_files(self, ids: Mapping[str, str]) -> Iterator[str]:
        kept = list[str]()
        for path, file in self.staged.items():
            made, here = file.read_bytes() if file else None, self._here(path)
            found = ids.get(path)
            if self._is_in_commit(path, file, made, found):
                if here == made:
                    continue
                versions = [here]
                what = f"commit {self.hash} has it as it was made, and the file here is another by now (a git hook?)"
                wrong = f"{what}; see `git -C {shlex.quote(str(self.tree.root))} diff -- {shlex.quote(path)}`"
                wrong = f"{wrong}, mend the hook, and restore the file"
            else:
                commits = self._content(found)
                versions = [commits, here]
                state = "the same as in it" if here == commits else "neither that nor as it was made"
                state = f"the file here is {'as it was made' if here == made else state}"
                what, wrong = (
                    f"a git hook changed it on its way into commit {self.hash}; {state}",
                    self._wrong(path, state),
                )
                if here == commits:
                    kept.append(path)
            if not self._means_the_same(path, made, versions):
                raise Altered(f"{self.tree.root / path}: {wrong}")
            yield f"{path}: {what}"
        self.repository.forget(kept)  # or the next commit would undo the hook's work: the index is as before it

    def _of_others(self, changed: Mapping[str, _Entry]) -> Iterator[str]:
        """What is in the commit besides; it was not to be."""
        ours = {self._from_top(path) for path in self.staged}
        for path, (_, id) in changed.items():
            if path in ours:
                continue
            content = self.repository.contents([id], "blob").get(id, b"")
            if posixpath.basename(path) == _RULES or _ENCRYPTED in content:
                below = posixpath.relpath(f"/{path}", f"/{self.repository.prefix}")
                raise Altered(f"{self.tree.root / below}: {self._wrong(below, 'it was not to be in it')}")
            yield f"commit {self.hash} has {path} as well, which a git hook added"

    def _of_branch(self, status: int) -> Iterator[str]:
        if status:
            keep = f"`git -C {shlex.quote(str(self.tree.root))} branch NAME {self.hash}` keeps it"
            yield f"commit {self.hash} is on no branch, for HEAD is detached; {keep}"

    def _wrong(self, path: str, state: str) -> str:
        git = f"git -C {shlex.quote(str(self.tree.root))}"
        what = f"a git hook changed it on its way into commit {self.hash}, which is made and stays; {state}"
        look = f"see `{git} show {self.hash} -- {shlex.quote(path)}`"
        return f"{what}; {look}, mend the hook, then `{git} revert {self.hash}`, or correct it by hand"

    def _from_top(self, path: str) -> str:
        return posixpath.normpath(f"{self.repository.prefix}{path}")

    def _ids(self, changed: Mapping[str, _Entry]) -> dict[str, str]:
        """What the commit has of each path: a file's object, or `MODE ID` of what is not a file."""
        ours = {self._from_top(path): path for path in self.staged}
        entries = {path: entry for path, entry in changed.items() if path in ours}
        if unchanged := ours.keys() - entries:
            listed = self.repository.read("ls-tree", "-z", "--full-tree", "HEAD", "--", *sorted(unchanged)).stdout
            for entry, _, path in (row.partition("\t") for row in listed.split("\0")[:-1]):
                mode, _, id = entry.split(" ")
                entries[path] = mode, id
        there = ((ours[path], mode, id) for path, (mode, id) in entries.items() if mode != _NOTHING)
        return {path: id if mode in _FILES else f"{mode} {id}" for path, mode, id in there}

    def _here(self, path: str) -> bytes | None:
        try:
            return self.tree.read(path)
        except FleetError:  # a link, which is not what was made; what it is for the commit is another matter
            return None

    def _is_in_commit(self, path: str, file: Path | None, content: bytes | None, id: str | None) -> bool:
        if file is None or content is None or id is None:
            return file is None and id is None
        new = hashlib.sha1 if len(id) == 40 else hashlib.sha256
        if new(b"blob %d\0" % len(content) + content).hexdigest() == id:
            return True
        return self.repository.write("hash-object", f"--path={path}", "--", str(file)).stdout.strip() == id

    def _content(self, id: str | None) -> bytes | None:
        return None if id is None else self.repository.contents([id], "blob").get(id)

    def _means_the_same(self, path: str, made: bytes | None, versions: list[bytes | None]) -> bool:
        if made is None or _ENCRYPTED in made:
            return False
        if path.endswith(_DOCUMENTS):
            return True
        return path.endswith(".nix") and all(
            each is not None and self._says_the_same(path, made, each, str(at)) for at, each in enumerate(versions)
        )

    def _says_the_same(self, path: str, made: bytes, other: bytes, name: str) -> bool:
        parsed = [
            run(["nix-instantiate", "--parse", "-"], input=each, timeout=_PARSED, check=False) for each in (made, other)
        ]
        if all(each.status == 0 for each in parsed) and parsed[0].raw == parsed[1].raw:
            return True
        if path not in (HOSTS, DEFINITIONS):
            return False
        try:
            for version, content in (("made", made), ("other", other)):  # the directory may hold either, or a third
                require_exactly(self.tree.root, {path: content}, {}, self.scratch / "read-back" / name / version)
        except FleetError:
            return False
        return True
