"""One secret file edited by a person or a program, in `sops edit`, as a copy: the fleet's own stays until it is right.

sops calls the editor again and again while what it left is not valid, which without a terminal has no end: the editor
is started by a script of ours, that runs it once more only where a person can press enter.
"""

import os
import posixpath
import re
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path

from nixherd.base.errors import FleetError, ProcessFailed, Usage
from nixherd.base.files import write_whole
from nixherd.base.process import foreground, run
from nixherd.base.run import Run
from nixherd.trust.secrets.files import Encrypted, Format, read_file
from nixherd.trust.secrets.rules import CONFIG, Rule, Unknown
from nixherd.trust.secrets.sops import Sops, explained
from nixherd.trust.secrets.store import Secrets, Store

_UNCHANGED = 200  # sops: "File has not changed, exiting."
_EDITORS = ("vim", "nano", "vi")  # those that sops would take
_LONGEST = 24 * 3600.0  # seconds
_WHY = re.compile(r'error="((?:[^"\\]|\\.)*)"')
_SCRIPT = """#!/bin/sh
# starts the editor; a second time only where somebody can see why
if [ -e {began} ] && [ {is_terminal} = no ]; then : > {again}; exit 1; fi
: > {began}
if [ {is_terminal} = no ] && [ -r {stdin} ]; then exec < {stdin}; fi
{editor} "$@"
status=$?
[ "$status" = 0 ] || echo "$status" > {failed}
exit "$status"
"""


@dataclass(frozen=True)
class Editing:
    """A secret file that is to be edited: `before` is what it holds, None where it is to be made."""

    store: Store
    path: str
    rule: Rule
    before: bytes | None

    @classmethod
    def of(cls, secrets: Secrets, path: str) -> "Editing":
        """FleetError where no rule matches it, or it is plain text; Usage for what is not a secret."""
        if (secrets.root / path).is_dir():
            raise Usage(f"{path}: is a directory; name a file in it")
        if posixpath.basename(path) == CONFIG:
            raise Usage(f"{path}: is not a secret; change it in an editor, then `nixherd secrets apply`")
        store = secrets.require_store(path)
        rule, before = store.rules.rule_of(store.below(path)), secrets.read(path)
        if not store.could_be_secret(path) and cls._is_plain(path, before):
            remedy = f"name one below {store.usual_directory}, which is made if it does not exist"
            raise Usage(f"{path}: is plain text, and not a secret; {remedy}")
        if isinstance(rule, Unknown):
            raise FleetError(f"{path}: which rule it has is not known: {rule.why}")
        if rule is None:
            raise FleetError(f"{path}: no creation rule matches it; add one to {store.config}")
        editing = cls(store, path, rule, before)
        if cls._is_plain(path, before):
            remedy = "`sops encrypt --in-place` it, and change what was in it"
            raise FleetError(f"{path}: is not encrypted; {remedy}")
        return editing

    @staticmethod
    def _is_plain(path: str, content: bytes | None) -> bool:
        return bool(content and content.strip()) and _read(path, content) is None

    @property
    def encrypted(self) -> Encrypted | None:
        return _read(self.path, self.before)

    @property
    def step(self) -> str:
        return f"{'edit' if self.encrypted else 'make'} {self.path}"

    def edited(self, run: Run, sops: Sops, staged: Path, *, is_terminal: bool) -> bytes | None:
        """Have a copy below `staged` edited; return what it is then, None where it was not changed.

        Usage for what sops does not take, or would not encrypt; FleetError when the editor or sops fails.
        """
        config, copy = self.store.staged_config(staged), Path(os.path.normpath(staged / self.path))
        for directory in (staged, config.parent, copy.parent):
            directory.mkdir(parents=True, exist_ok=True)
        config.write_bytes(self.store.text.encode())
        if self.encrypted:
            write_whole(copy, (self.before or b"").decode())
        editor = _Editor(run, is_terminal=is_terminal)
        status, words = editor.run(sops, ["--config", str(config), "edit", "--", str(copy)])
        editor.require_right(self.path, status, words)
        content = copy.read_bytes() if copy.is_file() else None
        copy.unlink(missing_ok=True)
        if status == _UNCHANGED or content is None or content == self.before:
            return None
        self._require_encrypted(content)
        return content

    def _require_encrypted(self, content: bytes) -> None:
        try:
            after = read_file(self.path, content)
        except ValueError as error:
            raise FleetError(f"{self.path}: what sops wrote cannot be read: {error}; nothing was changed") from None
        if after is None or after.encrypts_nothing:
            why = "it is empty, or what its rule says is to be encrypted is not in it"
            raise Usage(f"{self.path}: nothing in it would be encrypted: {why}; it stays as it was")
        groups = self.encrypted.groups if self.encrypted else self.rule.groups
        if [set(group) for group in after.groups] != [set(group) for group in groups]:
            who = "those that could decrypt it before" if self.encrypted else f"those that {self.rule.label} names"
            raise FleetError(f"{self.path}: sops encrypted it for others than {who}; nothing was changed")


def _read(path: str, content: bytes | None) -> Encrypted | None:
    if not (content and content.strip()):  # which JSON cannot be
        return None
    try:
        return read_file(path, content)
    except ValueError as error:
        raise FleetError(f"{path}: cannot be read: {error}") from None


class _Editor:
    """The editor of whoever runs this, as sops is told it."""

    def __init__(self, run: Run, *, is_terminal: bool) -> None:
        self.is_terminal, self.directory = is_terminal, run.directory / "edit"
        shutil.rmtree(self.directory, ignore_errors=True)
        self.directory.mkdir(mode=0o700)
        given = os.environ.get("SOPS_EDITOR") or os.environ.get("EDITOR") or ""
        try:
            self.words = shlex.split(given)
        except ValueError as error:
            raise Usage(f"$EDITOR is {given!r}, which cannot be read: {error}") from None
        if not self.words and not is_terminal:
            raise Usage("no editor: set EDITOR to a program that needs no terminal, or run this in one")
        if not self.words:
            found = next((name for name in _EDITORS if shutil.which(name)), None)
            if found is None:
                raise Usage(f"no editor: set EDITOR, or install one of {', '.join(_EDITORS)}")
            self.words = [found]
        places = {name: shlex.quote(str(self.directory / name)) for name in ("began", "again", "failed")}
        text = _SCRIPT.format(
            **places,
            stdin=f"/proc/{os.getpid()}/fd/0",
            is_terminal="yes" if is_terminal else "no",
            editor=shlex.join(self.words),
        )
        write_whole(self.directory / "editor", text, 0o700)

    def run(self, sops: Sops, words: list[str]) -> tuple[int, str]:
        """Run sops with it; its status, and what it said, where no terminal has shown it."""
        argv, env = sops.command(words)
        # what sops hands to the editor lies in TMPDIR: in ours, that nobody else can enter
        env = {**env, "EDITOR": shlex.quote(str(self.directory / "editor")), "TMPDIR": str(self.directory)}
        if self.is_terminal:
            return foreground(argv, env), ""
        done = run(argv, env=env, timeout=_LONGEST, check=False)
        return done.status, done.stderr

    def require_right(self, path: str, status: int, words: str) -> None:
        if (self.directory / "again").exists():
            found = _WHY.search(words)
            why = " ".join((found[1] if found else words).replace('\\"', '"').split())
            what = f"{path}: what the editor left is not valid {Format.of(path)}: {why}"
            raise Usage(f"{what}; without a terminal it is not asked again, and the file stays as it was")
        if (self.directory / "failed").exists():
            ended = (self.directory / "failed").read_text().strip()
            raise FleetError(
                f"{path}: the editor ({self.words[0]}) ended with status {ended}; the file stays as it was"
            )
        if status not in (0, _UNCHANGED):
            raise ProcessFailed(f"{path}: {explained(words, 'edit')}; the file stays as it was", status)


def chosen(secrets: Secrets, given: str) -> str:
    """The path, from the fleet's directory, of the file that is meant by what was typed.

    That is an absolute path, or one from the current directory, the fleet's, or one with a `.sops.yaml`, or below
    `secrets`: the first where there is such a file, else the first that has a rule. Usage for one elsewhere.
    """
    if not given:
        raise Usage("'' names no file; write the path of a secret file")
    root = secrets.root.resolve()
    top = root
    for _ in Path(secrets.prefix).parts:
        top = top.parent
    # the current directory as it was come to may lead through a link
    bases = [Path.cwd(), root, *(root / store.directory for store in secrets.stores), root / "secrets"]
    places = [Path(given)] if Path(given).is_absolute() else [base / given for base in bases]
    whole = dict.fromkeys(_without_links_above(place) for place in places)
    paths = [os.path.relpath(place, root) for place in whole if place.is_relative_to(top) and place != top]
    if not paths:
        raise Usage(f"{given}: is outside of {top}")
    if any(".git" in Path(path).parts for path in paths):
        raise Usage(f"{given}: is git's own; no secret is there")
    known = [path for path in paths if os.path.lexists(root / path)]
    ruled = [path for path in paths if (store := secrets.store_of(path)) and store.rules.rule_of(store.below(path))]
    in_store = [path for path in paths if secrets.store_of(path)]
    return posixpath.normpath([*known, *ruled, *in_store[::-1], *paths][0])


def _without_links_above(place: Path) -> Path:
    """The same path, the links of its directory followed; itself it may be one, which is refused later."""
    normal = Path(os.path.normpath(place))
    return normal.parent.resolve() / normal.name
