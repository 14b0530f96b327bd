"""A host's way out of the fleet's files, as one change: secrets, hosts.nix, definitions, its own files, overview.

Nothing is written and nobody is asked here: `plan` says what there is to do, what stays and why, and which other
lines of the fleet's files name the host.
"""

import os
import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from nixherd.base.errors import FleetError
from nixherd.base.names import many
from nixherd.fleet import tree
from nixherd.fleet.git import Repository
from nixherd.fleet.models import DEFINITIONS, HOSTS, Fleet, Host, Vm
from nixherd.trust.enrol import Wanted, overview_of, render_overview, unseen
from nixherd.trust.former import its_alone, known_keys
from nixherd.trust.leaving import (
    Declarations,
    OwnRule,
    nothing_declared,
    require_own_key,
    require_unused,
    without_rules,
)
from nixherd.trust.mentions import Mention, imported, mentions_of
from nixherd.trust.recipients import keys_of, namesakes_stay, untrusted
from nixherd.trust.secrets.files import read_file
from nixherd.trust.secrets.rules import CONFIG, parse_rules

_LARGEST = 1 << 20  # bytes of a file that is searched for names
_NOT_SEARCHED = ("flake.lock", ".git")


@dataclass(frozen=True)
class Retirement:
    """`change` is what to write. `guests` are the definitions' entries that go with the host.

    `known` are secret files that stay and that the host could decrypt, `rules` those that were for it alone, `stays`
    what of its files is left and why, `mentions` where else the fleet's files name it.
    """

    change: Wanted
    host: Host
    guests: tuple[Vm, ...]
    known: tuple[str, ...] = ()
    rules: tuple[OwnRule, ...] = ()
    stays: tuple[str, ...] = ()
    mentions: tuple[Mention, ...] = ()


def plan(
    change: Wanted,
    host_id: str,
    repository: Repository | None,
    *,
    remove_secrets: bool = False,
    declared: Declarations = nothing_declared,
    docs: str = "docs/machines.md",
    template: str | None = None,
    beside: Sequence[Path] = (),
) -> Retirement:
    """All of it. FleetError, CannotEdit among them, when a file cannot be changed like that.

    `beside` are files outside of the fleet's repository that may name the host as well; `declared` is what the hosts
    that stay declare.
    """
    fleet, host = change.fleet, change.fleet.hosts[host_id]
    fleet.require_hosts_file(f"take {host.attribute} out of it by hand")
    guests = tuple(vm for vm in fleet.vms.values() if vm.host_id == host_id)
    texts = _texts(change.root, repository)
    _require_no_other_store(change, host, texts)
    change, rules, known = _without_secrets(change, host, remove=remove_secrets, declared=declared)
    change = change.without(HOSTS, (host_id,), f"{HOSTS}: {host_id} goes")
    for vm in guests:
        change = change.without(DEFINITIONS, (str(vm.origin), vm.name), f"{DEFINITIONS}: {vm.attribute} goes")
    hosts = {name: host for name, host in fleet.hosts.items() if name != host_id}
    vms = {name: vm for name, vm in fleet.vms.items() if vm.host_id != host_id}
    change = replace(change, fleet=replace(fleet, hosts=hosts, vms=vms))
    change, stays = _without_files(change, fleet, host, texts, repository)
    if change.current(docs) is not None:
        content = overview_of(change.current(docs), render_overview(change.fleet, template), docs)
        change = change.edited(docs, unseen(content, host_id), f"{docs}: the overview")
    after = _after(texts, change)
    require_unused(rules, after)
    after |= _beside(beside, repository.top if repository else change.root)
    found = mentions_of(after, {name for name in (*_names(host), *(vm.name for vm in guests)) if len(name) > 1})
    stays = tuple(dict.fromkeys((*change.notes, *namesakes_stay(change, host.id), *stays)))
    return Retirement(change, host, guests, known, rules, stays, tuple(found))


def _names(host: Host) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for name in (host.id, host.hostname, host.ssh_alias) if name))


# Secrets


def _without_secrets(
    change: Wanted, host: Host, *, remove: bool, declared: Declarations
) -> tuple[Wanted, tuple[OwnRule, ...], tuple[str, ...]]:
    """With the host's keys out of every rule, its own rules as asked, and the files that it knows and that stay."""
    if not change.secrets:
        return change, (), ()
    require_own_key(change.fleet, host)
    alone, known = list[OwnRule](), set[str]()
    leaving = its_alone(change.fleet, host.id)
    for store in change.secrets.stores:
        change, rules, files = without_rules(change, store, {host.id: leaving}, remove=remove, declared=declared)
        alone += rules
        known |= files
    if any(keys_of(change, store, host.id) for store in change.secrets.stores):
        change = untrusted(change, host.id)
    return change, tuple(alone), tuple(sorted(known))


def _require_no_other_store(change: Wanted, host: Host, texts: Mapping[str, bytes]) -> None:
    """FleetError for what the host could decrypt and is not among the secrets: it would still do so afterwards."""
    keys = known_keys(change.fleet, host.id)
    for path, text in texts.items():
        if change.secrets.store_of(path) is not None:
            continue
        try:
            if posixpath.basename(path) == CONFIG:
                rules = parse_rules(text.decode())
                is_named = any(key.bare in keys for key in rules.known)
            else:
                encrypted = read_file(path, text) if any(key.value.encode() in text for key in keys) else None
                is_named = encrypted is not None and any(key.bare in keys for key in encrypted.recipients)
        except ValueError:  # nothing that sops would read
            continue
        if is_named:
            outside = f"outside of {' and '.join(change.secrets.configs) or 'a directory with a .sops.yaml'}"
            remedy = "leave --secrets out, or take it out by hand first (sops updatekeys, sops rotate)"
            raise FleetError(f"{path}: {host.id} is a recipient there, {outside}; {remedy}")


# Its files


def _without_files(
    change: Wanted, fleet: Fleet, host: Host, texts: Mapping[str, bytes], repository: Repository | None
) -> tuple[Wanted, tuple[str, ...]]:
    """Without what is the host's alone below the fleet's directory; and what stays, with why."""
    stays: list[str] = []
    for target, kept in _own_places(fleet, host).items():
        files = _files_in(change.root, target, repository)
        if not files:
            continue
        if kept:
            stays.append(f"{target} stays: {kept}")
            continue
        others = {path: text for path, text in _after(texts, change).items() if path not in files}
        if found := imported(others, [target]):
            stays.append(f"{target} stays: {found[0]}")
            continue
        if repository is None:
            stays.append(f"{target} stays: no git could bring it back")
            continue
        places = {path: change.root / path for path in files}
        regular = [path for path, place in places.items() if place.is_file() and not place.is_symlink()]
        if regular:
            which = f" ({many(len(regular), 'file')})" if regular != [target] else ""
            change = change.removed(regular, f"remove {target}{which}")
        stays += [f"{path} stays: it is not an ordinary file" for path in files if path not in regular]
    return change, tuple(stays)


def _own_places(fleet: Fleet, host: Host) -> dict[str, str | None]:
    """Directories and files, below the fleet's, that are this host's; each with why it may not go, where it may not."""
    names = _names(host)
    rest = (other for other in fleet.hosts.values() if other.id != host.id)
    others = {path: other.id for other in rest for path in _own_paths(fleet, other)}
    found: dict[str, str | None] = {f"hosts/{host.id}": None}
    for path in _own_paths(fleet, host):
        parent = posixpath.dirname(path)
        is_named_so = posixpath.basename(parent) in names
        if parent not in found:
            place = parent if is_named_so else path
            is_named = is_named_so or posixpath.splitext(posixpath.basename(path))[0] in names
            found[place] = None if is_named else "nothing says that it is this host's alone"
    for place in found:
        if user := next(
            (other for path, other in others.items() if path == place or path.startswith(f"{place}/")), None
        ):
            found[place] = f"{HOSTS}: {user} has files there"
    return found


def _own_paths(fleet: Fleet, host: Host) -> list[str]:
    """The files of its entry that are below the fleet's directory, relative to that."""
    given = [path for path in (host.configuration_file, host.home_file) if path]
    relative = [os.path.relpath(path, fleet.path) for path in given]
    return [path for path in relative if not path.startswith("..")]


def _files_in(root: Path, target: str, repository: Repository | None) -> list[str]:
    """The files of a place in `root`: those that git knows, without git all."""
    if repository is not None:
        return [path for path in repository.tracked([target]) if target == "." or f"{path}/".startswith(f"{target}/")]
    place = root / target
    return [target] if place.is_file() else [str(each.relative_to(root)) for each in place.rglob("*") if each.is_file()]


# What names it


def _texts(root: Path, repository: Repository | None) -> dict[str, bytes]:
    """The fleet's files that may name a host, by path below its directory: those that git knows, in all of its tree."""
    top = repository.top if repository else root
    texts = {}
    with tree.opened(top) as opened:
        for path in _files_in(top, ".", repository and Repository.around(top)):
            if any(part in _NOT_SEARCHED for part in path.split("/")):
                continue
            if not (top / path).is_file() or (top / path).stat().st_size > _LARGEST:
                continue
            try:
                content = opened.read(path)
            except FleetError:  # a link, or below one: what it leads to is looked at where it is
                continue
            if content is not None:
                texts[os.path.relpath(top.resolve() / path, root.resolve())] = content
    return texts


def _beside(paths: Sequence[Path], top: Path) -> dict[str, bytes]:
    elsewhere = (path for path in paths if not path.resolve().is_relative_to(top.resolve()))
    return {str(path): path.read_bytes() for path in elsewhere if path.is_file() and path.stat().st_size <= _LARGEST}


def _after(texts: Mapping[str, bytes], change: Wanted) -> dict[str, bytes]:
    """The same as they are to be; without secret files."""
    secret = set(change.secrets.files)
    changed = {path: change.files.get(path, content) for path, content in texts.items() if path not in secret}
    return {path: content for path, content in changed.items() if content is not None}
