"""Files that an operator gives for a new root: read here, packed into one archive, and compared with what is there.

Modes are those of the files here. The owner is root, as the one here says nothing of the new machine; others are named
by number, because the new machine's users exist only once it has been activated. Links are carried as they are, and
never followed, here or there.
"""

import hashlib
import io
import os
import posixpath
import re
import shlex
import stat
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from nixherd.base.errors import FleetInvalid
from nixherd.base.ssh_keys import HOST_KEY, HOST_KEY_FILE

LARGEST = 256 << 20  # bytes of all files together, which are held in memory
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_MODE = 0o7777
_OWNER = re.compile(r"(root|[0-9]{1,10}):(root|[0-9]{1,10})")
_HIGHEST = (1 << 32) - 2  # uid_t; the next one means nobody
# What is Nix's there; beside them, people keep what survives in /nix.
_NIX = ("nix/store", "nix/var/nix")
DIRECTORY, FILE, LINK = "d", "f", "l"  # as find(1) calls them


@dataclass(frozen=True)
class Entry:
    """One name below the new root: `path` is relative to it, `mode` the twelve bits, `target` that of a link.

    `sha256` is a file's, in hex.
    """

    path: str
    kind: str
    mode: int = 0o777
    uid: int = 0
    gid: int = 0
    target: str = ""
    sha256: str = ""
    content: bytes = field(default=b"", repr=False, compare=False)

    def __str__(self) -> str:
        return f"{self.kind} {self.mode:o} {self.uid}:{self.gid}"


def read(host_id: str, given: object, owners: object = None) -> tuple[Entry, ...]:
    """Read what is to be carried: a directory's tree, or a mapping of single files, which become 0600 and root's.

    `owners` are `UID:GID` by the path in the new root from which on they hold. FleetInvalid, with all that is wrong.
    """
    reader = _Reader()
    if isinstance(given, Mapping):
        for target, source in given.items():
            reader.file(str(target), Path(str(source)))
    elif isinstance(given, str) and given:
        reader.directory(Path(given))
    else:
        reader.wrong('is neither a directory nor a mapping; write it as {"/etc/x": "path/of/the/local/file"}')
    numbers, wrong = _numbers(owners, reader.entries)
    if findings := [*(f"extra_files: {each}" for each in reader.findings), *wrong]:
        raise FleetInvalid([f"{host_id}: {each}" for each in findings])
    return tuple(_owned(each, numbers) for each in reader.entries)


class _Reader:
    """Takes in what is given, and every reason why it cannot be carried."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.findings: list[str] = []
        self._size, self._is_full = 0, False

    def wrong(self, what: str) -> None:
        self.findings.append(what)

    def file(self, target: str, source: Path) -> None:
        """One file of a mapping, for a path of the new root."""
        path = PurePosixPath(target)
        if not path.is_absolute() or ".." in path.parts or target.endswith("/") or not target.isprintable():
            self.wrong(f"{target} is not an absolute path; say where in the new root the file is")
        elif why := _not_ours(target.lstrip("/")):
            self.wrong(f"{target} {why}")
        if not source.is_file():
            self.wrong(f"{source} is not there; correct the path of the local file")
        elif not self.findings:
            self._add(source.resolve(), Entry(str(path).lstrip("/"), FILE, 0o600))

    def directory(self, top: Path) -> None:
        """All that is below a directory. The directory itself stands for /, whose mode stays."""
        if not top.is_dir():
            self.wrong(f"{top} is not there, or no directory; correct its path")
            return
        self._walk(top, "")
        if not self.entries and not self.findings:
            self.wrong(f"{top} is empty; leave it out, or fill it")

    def _walk(self, directory: Path, prefix: str) -> None:
        try:
            found = sorted(os.scandir(directory), key=lambda each: each.name)
        except OSError as error:
            self.wrong(f"{directory} cannot be read ({error.strerror})")
            return
        for each in found:
            path, place = f"{prefix}{each.name}", directory / each.name
            status = each.stat(follow_symlinks=False)
            mode = stat.S_IMODE(status.st_mode) & _MODE
            if not each.name.isprintable():
                self.wrong(f"{str(place)!r} has a name that cannot be printed; give it another one")
            elif why := _not_ours(path):
                self.wrong(f"{place} {why}")
            elif stat.S_ISDIR(status.st_mode):
                self.entries.append(Entry(path, DIRECTORY, mode))
                self._walk(place, f"{path}/")
            elif stat.S_ISLNK(status.st_mode):
                self._link(place, path)
            elif stat.S_ISREG(status.st_mode):
                self._add(place, Entry(path, FILE, mode))
            else:
                self.wrong(f"{place} is neither a file, a directory nor a symbolic link; remove it")

    def _link(self, place: Path, path: str) -> None:
        target = str(place.readlink())
        leads_to = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
        if not target.isprintable():
            self.wrong(f"{place} leads to a name that cannot be printed; correct it")
        elif leads_to == ".." or leads_to.startswith("../"):
            self.wrong(f"{place} leads out of the new root ({target}); correct it")
        else:
            self.entries.append(Entry(path, LINK, target=target))

    def _add(self, place: Path, entry: Entry) -> None:
        try:
            handle = os.open(place, _FILE)
            with os.fdopen(handle, "rb") as file:
                content = file.read(LARGEST - self._size + 1)
        except OSError as error:
            self.wrong(f"{place} cannot be read ({error.strerror})")
            return
        self._size += len(content)
        if self._size > LARGEST:
            if not self._is_full:
                self.wrong(f"more than {LARGEST >> 20} MiB; copy what is large once the machine runs")
            self._is_full, self._size = True, LARGEST
            return
        self.entries.append(replace(entry, sha256=hashlib.sha256(content).hexdigest(), content=content))


def _not_ours(path: str) -> str | None:
    """Why a path of the new root is none that an operator's files may take."""
    if f"/{path}" in (HOST_KEY, HOST_KEY_FILE):
        return "is the host key, which is made here and pinned; docs/provisioning.md says where one of your own goes"
    if any(_is_at(path, each) for each in _NIX):
        return "is Nix's own there; say it in the configuration instead"
    return None


def _numbers(owners: object, entries: Sequence[Entry]) -> tuple[dict[str, tuple[int, int]], list[str]]:
    """UID and GID by path, and what is wrong with what was given."""
    numbers: dict[str, tuple[int, int]] = {}
    findings: list[str] = []
    if owners is not None and not isinstance(owners, Mapping):
        findings.append(f'extra_owners: {owners} is not a mapping; write it as {{"/home/me": "1000:100"}}')
    for target, text in owners.items() if isinstance(owners, Mapping) else ():
        path, owner = str(target).strip("/"), _OWNER.fullmatch(str(text))
        ids = [0 if each == "root" else int(each) for each in owner.groups()] if owner else [_HIGHEST + 1]
        if max(ids) > _HIGHEST:
            remedy = "give numbers, as the new machine has no users before it runs"
            findings.append(f"extra_owners: {target}: {text} is not UID:GID; {remedy}")
        elif not any(_is_at(each.path, path) for each in entries):
            findings.append(f"extra_owners: {target}: nothing of extra_files is there; correct the path")
        else:
            numbers[path] = (ids[0], ids[1])
    return numbers, findings


def _is_at(path: str, above: str) -> bool:
    return path == above or path.startswith(f"{above}/")


def _owned(entry: Entry, numbers: Mapping[str, tuple[int, int]]) -> Entry:
    """The entry with its owner, which the nearest path says."""
    above = max((path for path in numbers if _is_at(entry.path, path)), key=len, default=None)
    uid, gid = numbers[above] if above is not None else (0, 0)
    return replace(entry, uid=uid, gid=gid)


def archive(entries: Iterable[Entry]) -> bytes:
    """A tar archive of them, to be unpacked by root with --numeric-owner."""
    kinds = {DIRECTORY: tarfile.DIRTYPE, FILE: tarfile.REGTYPE, LINK: tarfile.SYMTYPE}
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for entry in entries:
            member = tarfile.TarInfo(f"./{entry.path}")
            member.type, member.mode, member.linkname = kinds[entry.kind], entry.mode, entry.target
            member.uid, member.gid, member.size = entry.uid, entry.gid, len(entry.content)
            tar.addfile(member, io.BytesIO(entry.content))
    return packed.getvalue()


def listing_script(root: str) -> str:
    """Print what there is below `root` of the paths on stdin, as `parse_listing` reads it."""
    names = r"""find "$@" -maxdepth 0 -printf '%y\t%m\t%U\t%G\t%l\t%p\n'"""
    look = f'{names}; find "$@" -maxdepth 0 -type f -exec sha256sum {{}} +'
    return f"cd {root} && LC_ALL=C xargs -r -d '\\n' sh -c {shlex.quote(look)} sh 2>/dev/null; true"


def listed(entries: Sequence[Entry]) -> str:
    """What `listing_script` is to be told: each entry, and the directories above it."""
    above = {str(each) for entry in entries for each in PurePosixPath(entry.path).parents if each.parts}
    return "".join(f"./{path}\n" for path in sorted({*above, *(entry.path for entry in entries)}))


def parse_listing(text: str) -> dict[str, Entry]:
    """What is there, by path."""
    entries: dict[str, Entry] = {}
    for line in text.splitlines():
        kind, *words = line.split("\t")
        if len(words) == 5:
            mode, uid, gid, target, path = words
            name = path.removeprefix("./")
            entries[name] = Entry(name, kind, int(mode, 8), int(uid), int(gid), target)
            continue
        digest, _, path = line.removeprefix("\\").partition("  ")
        name = (path.replace("\\\\", "\\") if line.startswith("\\") else path).removeprefix("./")
        if name in entries:
            entries[name] = replace(entries[name], sha256=digest)
    return entries


def differences(entries: Iterable[Entry], there: Mapping[str, Entry]) -> list[str]:
    """Where what is there is not what is carried, a line each."""
    lines = []
    for entry in entries:
        seen = there.get(entry.path)
        if seen is None:
            lines.append(f"/{entry.path} is missing")
        elif str(seen) != str(entry):
            lines.append(f"/{entry.path} is {seen}, not {entry}")
        elif seen != entry:
            lines.append(f"/{entry.path} has another {'target' if entry.kind == LINK else 'content'}")
    return lines


def in_the_way(entries: Sequence[Entry], there: Mapping[str, Entry]) -> list[str]:
    """What stands where directories are to be: through a link, files would go somewhere else."""
    directories = {str(each) for entry in entries for each in PurePosixPath(entry.path).parents if each.parts}
    directories |= {entry.path for entry in entries if entry.kind == DIRECTORY}
    others = {entry.path for entry in entries} - directories
    return [
        *(
            f"/{path} is not a directory"
            for path in sorted(directories)
            if path in there and there[path].kind != DIRECTORY
        ),
        *(f"/{path} is a directory" for path in sorted(others) if path in there and there[path].kind == DIRECTORY),
    ]
