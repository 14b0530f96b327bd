"""How a fleet's secrets begin: a `.sops.yaml` for the people and hosts there are, and the files that are declared.

It is for a new fleet, and for one whose shipped examples its new owner cannot decrypt.
"""

import posixpath
import re
import shlex
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain

from nixherd.base.errors import FleetError, Usage
from nixherd.base.run import Run
from nixherd.nix.declared import Declared, DeclaredSecret, by_file, files_of
from nixherd.trust.enrol import Wanted
from nixherd.trust.recipients import with_rekeys
from nixherd.trust.secrets.identities import Opens, Operator
from nixherd.trust.secrets.keys import Recipient
from nixherd.trust.secrets.people import recipient_of_host
from nixherd.trust.secrets.placeholders import NewFile
from nixherd.trust.secrets.places import from_fleet, from_top
from nixherd.trust.secrets.reading import SecretFile
from nixherd.trust.secrets.rules import CONFIG, Rule, parse_rules, path_regex_of
from nixherd.trust.secrets.rules_text import anchor_of, scalar
from nixherd.trust.secrets.sops import operator
from nixherd.trust.secrets.store import Secrets, Store

USUAL = "secrets"
_SHOWN = 5  # files
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]*")
_INTRODUCTION = (
    "# Who may decrypt which file. A machine's key is made of its pinned publicKey (ssh-to-age); enrolling one\n"
    "# adds it. After an edit by hand: nixherd secrets apply.\n"
)


@dataclass(frozen=True, slots=True)
class DeclaredFile:
    """A file that configurations declare, from the fleet's directory: its secrets, and the hosts that decrypt them.

    No host is among these for a file that only homes declare, whose people decrypt it.
    """

    path: str
    secrets: tuple[DeclaredSecret, ...]
    hosts: tuple[str, ...]


def declared_files(declared: Iterable[Declared]) -> tuple[DeclaredFile, ...]:
    """The files of this repository that these configurations declare, sorted by path."""
    configurations = tuple(declared)
    hosts = defaultdict[str, list[str]](list)
    for each in configurations:
        for path in files_of(each.of_system):
            hosts[path].append(each.host_id)
    secrets = by_file(chain.from_iterable(each.all_secrets for each in configurations))
    return tuple(DeclaredFile(path, found, tuple(hosts[path])) for path, found in secrets.items())


def directory_of(files: Sequence[DeclaredFile], prefix: str = "") -> str:
    """The directory for `.sops.yaml`, from the fleet's: the innermost that has all the files; the usual one for none.

    `prefix` is the fleet's from the top of its repository. Usage where that is outside of the fleet's directory.
    """
    if not files:
        return USUAL
    found = _innermost([file.path for file in files], prefix)
    if outside := next((file.path for file in files if file.path.startswith("../")), None):
        what = f"{outside} is declared, outside of the fleet's directory, and {CONFIG} would be in {found}"
        raise Usage(f"{what}; say that, or a directory above it: {_said(found)}")
    return found


def _innermost(paths: Iterable[str], prefix: str) -> str:
    tops = [posixpath.dirname(f"/{from_top(path, prefix)}") for path in paths]
    return from_fleet(posixpath.commonpath(tops).lstrip("/") or ".", prefix)


def _said(directory: str) -> str:
    return f"`nixherd secrets --directory {shlex.quote(directory)} init`"


def config_text(
    people: Mapping[str, Recipient], hosts: Mapping[str, Recipient], rules: Sequence[tuple[str, Sequence[str]]]
) -> str:
    """The text of a `.sops.yaml`: keys by name, and rules, each a file below it with the hosts that decrypt it.

    Every person decrypts every file. Usage for a name that cannot be told from another one.
    """
    anchors = _anchors([*people, *hosts])
    lines = [_INTRODUCTION.rstrip("\n"), "keys:", "  # People."]
    lines += [_key(anchors[name], key) for name, key in people.items()]
    if hosts:
        lines += ["  # Machines.", *(_key(anchors[name], key) for name, key in hosts.items())]
    lines += ["", "creation_rules:" if rules else "creation_rules: []"]
    for path, readers in rules:
        keys = {**people, **{host: hosts[host] for host in readers if host in hosts}}
        lines += [f"  - path_regex: {scalar(path_regex_of(path))}", "    key_groups:"]
        lead = "      - "
        for kind in dict.fromkeys(key.kind for key in keys.values()):
            lines.append(f"{lead}{kind}:")
            lines += [f"          - *{anchors[name]}" for name, key in keys.items() if key.kind is kind]
            lead = "        "
        lines.append("")
    return "\n".join(lines).rstrip("\n") + "\n"


def _key(anchor: str, key: Recipient) -> str:
    return f"  - &{anchor} {scalar(key.value)}"


def _anchors(names: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in names:
        anchor = anchor_of(name)
        if (other := found.setdefault(anchor, name)) != name or names.count(name) > 1:
            raise Usage(
                f"{name} and {other} are two keys with one name in {CONFIG}; name the person otherwise (--name)"
            )
    return {name: anchor for anchor, name in found.items()}


def require_name(name: str) -> str:
    """A person's name, as given. Usage where it cannot be one."""
    if not _NAME.fullmatch(name):
        raise Usage(f"{name!r} is not a name for a key; use letters, digits, '_', '-', '.' and '@'")
    return name


@dataclass(frozen=True)
class Start:
    """What the secrets begin with: by name the keys of people, and what the hosts declare.

    `unreadable` are the files that nobody of them can decrypt, and `replaces` says that these may go, with the
    `.sops.yaml` that is there. `directory` is where that is to be, from the fleet's; where None, it follows.
    """

    people: Mapping[str, Recipient]
    declared: Sequence[Declared]
    directory: str | None = None
    unreadable: Collection[str] = ()
    replaces: bool = False


def started(change: Wanted, start: Start) -> Wanted:
    """With a `.sops.yaml`, a rule for each secret file, and every declared file; unchanged where nothing is missing.

    Usage where that is not to be done, or not without a word.
    """
    declared = {file.path: file for file in declared_files(start.declared)}
    old = _old_store(change.secrets, start.directory)
    if old is not None and not _is_replaced(
        old, start, [path for path in declared if path not in change.secrets.files]
    ):
        there = {key.bare for key in old.rules.known}
        left = [name for name, key in start.people.items() if key.bare not in there]
        note = f"{old.config} is there already, and was not given {', '.join(left)}; write the key into its rules"
        return replace(change, notes=(*change.notes, f"{note}, then `nixherd secrets apply`")) if left else change
    directory = (
        old.directory
        if old is not None
        else start.directory or directory_of(tuple(declared.values()), change.secrets.prefix)
    )
    files = {old.path(file.path): file for file in old.files} if old is not None else {}
    kept = {path: file for path, file in files.items() if path not in start.unreadable}
    in_the_way = (path for path in declared if path not in files and (change.current(path) or b"").strip())
    if not start.replaces and (lost := next(in_the_way, None)):
        remedy = f"move it away, and give its values to `nixherd secrets edit {lost}` afterwards"
        raise Usage(f"{lost}: is there, no {CONFIG} is for it, and what is in it would be lost; {remedy}")
    if wrong := next((f"{path}: cannot be read: {file.problem}" for path, file in kept.items() if file.problem), None):
        raise FleetError(f"{wrong}; mend it, or move it away")
    readers = {path: declared[path].hosts if path in declared else () for path in sorted({*declared, *kept})}
    hosts = {host.id: key for host in change.fleet.hosts.values() if (key := recipient_of_host(host)) is not None}
    used = {host: hosts[host] for host in sorted({*chain.from_iterable(readers.values())} & hosts.keys())}
    rules = [(_below(path, directory, readers, change.secrets.prefix), reading) for path, reading in readers.items()]
    text = config_text(start.people, used, rules)
    change = _without_unreadable(change, [path for path in files if path not in {*kept, *declared}])
    config, names = posixpath.normpath(f"{directory}/{CONFIG}"), ", ".join(_anchors([*start.people, *used]).values())
    change = change.edited(config, text.encode(), f"{config}: for {names}")
    change = _with_store(change, old, directory, text, [file for path, file in files.items() if path in kept])
    change = with_rekeys(change)
    for path in (path for path in declared if path not in kept):
        made = _new_file(change, declared[path], config)
        change = replace(change, created=(*change.created, made), seen={path: change.current(path), **change.seen})
    return change


def _old_store(secrets: Secrets, directory: str | None) -> Store | None:
    """The one that there is. Usage where several are, and none of them is meant."""
    if directory is not None:
        return next((store for store in secrets.stores if store.directory == directory), None)
    if len(secrets.stores) > 1:
        ways = " or ".join(_said(store.directory) for store in secrets.stores)
        raise Usage(f"there are {' and '.join(secrets.configs)}; say which is meant: {ways}")
    return next(iter(secrets.stores), None)


def _is_replaced(old: Store, start: Start, missing: Sequence[str]) -> bool:
    """Whether what is there may go. Usage where that has not been said, or it is in use."""
    if start.unreadable and start.replaces:
        return True
    if start.unreadable:
        shown, more = ", ".join(sorted(start.unreadable)[:_SHOWN]), len(start.unreadable) - _SHOWN
        which = f"{shown}{f' and {more} more' if more > 0 else ''}"
        remedy = "with --replace-unreadable they and the rules are made anew, and what is in them is lost to you"
        raise Usage(f"{old.config} is there already, and you cannot decrypt {which}; {remedy}")
    if missing:
        remedy = "`nixherd secrets add-host HOST --create` makes the files that a host declares"
        raise Usage(f"{old.config} is there already, and {', '.join(missing)} missing; {remedy}")
    return False


def _without_unreadable(change: Wanted, paths: Sequence[str]) -> Wanted:
    """Without the files that nobody declares and nobody can decrypt."""
    for path in paths:
        change = change.removed([path], f"remove {path}, which nobody declares and you cannot decrypt")
    return change


def _with_store(change: Wanted, old: Store | None, directory: str, text: str, files: Sequence[SecretFile]) -> Wanted:
    """With a store whose rules are this text, and the files of the old one that stay."""
    contents = {file.path: old.contents[file.path] for file in files} if old is not None else {}
    secrets = change.secrets
    store = Store(change.root, directory, text, parse_rules(text), tuple(files), contents, secrets.prefix)
    others = tuple(each for each in secrets.stores if each.directory != directory)
    return replace(change, secrets=replace(secrets, stores=(*others, store)))


def _new_file(change: Wanted, file: DeclaredFile, config: str) -> NewFile:
    store = change.secrets.require_store(file.path)
    rule, people = store.rules.rule_of(store.below(file.path)), change.secrets.people(change.fleet)
    assert isinstance(rule, Rule), "made for it"
    names = ", ".join(people.name(key) for key in rule.recipients)
    try:
        return NewFile.of(file.path, config, file.secrets, rule.recipients, names)
    except ValueError as error:
        raise Usage(f"{file.path}: {error}; correct the declaration") from None


def _below(path: str, directory: str, paths: Iterable[str], prefix: str) -> str:
    """A file's path as a rule sees it. Usage for one that is outside of the directory."""
    found = posixpath.relpath(f"/{from_top(path, prefix)}", f"/{from_top(directory, prefix)}")
    if found.startswith("../"):
        remedy = f"say where {CONFIG} is to be: {_said(_innermost(paths, prefix))}"
        raise Usage(f"{path} is declared, and not below {directory}; {remedy}")
    return found


def unreadable(run: Run, who: Operator, identity: str | None, secrets: Secrets) -> tuple[str, ...]:
    """The files that the operator cannot decrypt. FleetError where that is not known."""
    opens = {path: who.reads(file) for path, file in secrets.encrypted.items()}
    for path in (path for path, each in opens.items() if each is Opens.UNKNOWN):
        try:
            sops = operator(run, identity).sops(secrets.encrypted[path].recipients)
            sops.decrypt(secrets.root, secrets.root / secrets.require_store(path).config, [path])
        except FleetError as error:
            raise FleetError(
                f"{path}: whether you can decrypt it is not known ({error}); move it away, or have its keys here"
            ) from None
    return tuple(path for path, each in opens.items() if each is Opens.NO)


def unknown(declared: Iterable[Declared]) -> tuple[str, ...]:
    """What is not known of the declarations, a line a host."""
    return tuple(f"{each.host_id}: what it declares is not known: {each.problem}" for each in declared if each.problem)
