"""Recipients' way out of the secrets: their keys out of every rule and file, and the rules that were theirs alone."""

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain

from nixherd.base.errors import FleetError
from nixherd.fleet.git import Repository
from nixherd.fleet.models import Fleet, Host
from nixherd.nix.declared import Declared
from nixherd.trust.enrol import Wanted
from nixherd.trust.former import is_former, once_pinned, others_with
from nixherd.trust.joining import without_links
from nixherd.trust.mentions import imported
from nixherd.trust.recipients import NotARecipient, meant, without_keys
from nixherd.trust.secrets import rules_edit
from nixherd.trust.secrets.keys import Recipient, age_keys, is_key, named
from nixherd.trust.secrets.people import People
from nixherd.trust.secrets.places import from_top
from nixherd.trust.secrets.rules import Rule, Rules, parse_rules
from nixherd.trust.secrets.store import Secrets, Store

_COMMITS = 200  # the latest ones that changed a .sops.yaml
Declarations = Callable[[], Sequence[Declared]]
"""Evaluates what the hosts that stay declare: asked only where a rule and its files would go"""


def nothing_declared() -> Sequence[Declared]:
    """Nobody stays who could declare anything."""
    return ()


@dataclass(frozen=True)
class OwnRule:
    """A rule of `.sops.yaml` that names no other machine, the files that are its, and people who can decrypt them."""

    label: str
    files: tuple[str, ...]
    others: tuple[str, ...]
    goes: bool

    def __str__(self) -> str:
        files = ", ".join(self.files) or "no file"
        return f"{self.label} with {files}, which beside it {', '.join(self.others) or 'nobody'} can decrypt"


@dataclass(frozen=True)
class Leaving:
    """`change` is what to write, `rules` those that were for the leaving alone, `known` the files that they could read.

    Only those files are known that stay.
    """

    change: Wanted
    rules: tuple[OwnRule, ...]
    known: tuple[str, ...]


def leave(change: Wanted, names: Sequence[str], *, remove: bool, declared: Declarations = nothing_declared) -> Leaving:
    """Without these recipients anywhere; with `remove` also without the rules and files that were for them alone.

    Each is a host's id, what a key is called that is not a host's, or a key; whoever has left before is noted. Usage
    when one of them was never known. `declared` is what the others declare.
    """
    keys, known_before = dict[str, frozenset[Recipient]](), list[str]()
    for name in names:
        if (host := change.fleet.hosts.get(name)) is not None:
            require_own_key(change.fleet, host, names)
        try:
            keys[name] = frozenset(meant(change, name))
        except NotARecipient:
            if not _was_known(change, name):
                raise
            known_before.append(f"{name} is not a recipient")
            keys[name] = frozenset()  # its rule and file may be there
    change = replace(change, notes=(*change.notes, *known_before))
    rules, known = list[OwnRule](), set[str]()
    for store in change.secrets.stores:
        change, alone, files = without_rules(change, store, keys, remove=remove, declared=declared)
        rules += alone
        known |= files
    change = without_keys(change, keys)
    require_unused(rules, {path: content for path in change.secrets.nix if (content := change.current(path))})
    return Leaving(change, tuple(rules), tuple(sorted(known)))


def require_own_key(fleet: Fleet, host: Host, leaving: Collection[str] = ()) -> None:
    """FleetError where hosts.nix has a host's key a second time, for another one that does not leave as well."""
    others = others_with(fleet, host.id, host.public_key) if host.public_key else ()
    if other := next((each for each in others if each not in leaving), None):
        shared = f"{fleet.file}: {other} has the host key of {host.id}, and would lose its secrets with it"
        raise FleetError(f"{shared}; each machine needs its own")


def require_unused(rules: Iterable[OwnRule], texts: Mapping[str, bytes]) -> None:
    """FleetError where one of these Nix files names a file that goes with its rule."""
    gone = [path for rule in rules if rule.goes for path in rule.files]
    if found := imported(texts, gone):
        raise FleetError(f"{found[0]}: names a secret file that was to go; correct that first")


def _is_whole_key(text: str) -> bool:
    """Whether it is a key of some kind, neither mistyped nor cut off as far as that can be told."""
    if text.startswith(("age1", "ssh-")):
        try:
            return len(age_keys(text)) == 1
        except ValueError:
            return False
    return is_key(text)


def _was_known(change: Wanted, name: str) -> bool:
    """Whether this was a recipient, or could have been one: a host's id, a key, or what an earlier commit has."""
    if not name.strip():
        return False
    if name in change.fleet.hosts or _is_whole_key(name):
        return True
    repository = Repository.around(change.root)
    if repository is None:
        return False
    word = re.compile(rf"(?<![\w-]){re.escape(name)}(?![\w-])".encode())
    for store in change.secrets.stores:
        ids = repository.reachable(f"--max-count={_COMMITS}", "HEAD", "--", store.config)
        place = from_top(store.config, change.secrets.prefix)
        texts = repository.contents([f"{id}:{place}" for id in ids], kind="blob").values()
        if any(_names(text, name, word) for text in texts):
            return True
    return False


def _names(text: bytes, name: str, word: re.Pattern[bytes]) -> bool:
    """Whether a `.sops.yaml` has a key that is called so; what cannot be read any more is believed to."""
    try:
        rules = parse_rules(text.decode())
        return (
            name in rules.names.values()
            or any(name == key.label for key in rules.known)
            or bool(named(rules.known, name))
        )
    except ValueError:
        return bool(word.search(text))


def without_rules(
    change: Wanted,
    store: Store,
    leaving: Mapping[str, Collection[Recipient]],
    *,
    remove: bool,
    declared: Declarations = nothing_declared,
) -> tuple[Wanted, list[OwnRule], set[str]]:
    """Without the rules of one store that are for one of these alone, as asked; `leaving` has their keys.

    Returned are those, and the files that they know and that stay. A rule stays, which is noted, where it is not known
    what another host declares. FleetError where one does declare a file of a rule that was to go, and where nobody
    could decrypt what a rule that stays is for.
    """
    rules, names = change.rules()[store.config], " and ".join(leaving)
    by_name = {name: {key for key in rules.known if key in gone or key.bare in gone} for name, gone in leaving.items()}
    keys = set[Recipient]().union(*by_name.values())
    people = change.secrets.people(change.fleet, change.rules())
    known = {path for path, file in store.encrypted.items() if keys & set(file.recipients)}
    alone, numbers = list[OwnRule](), set[int]()  # `numbers`: of those that go
    machines = {name for name in leaving if _is_machine(change.fleet, name, by_name[name])}
    for rule in rules.rules:
        owners = {name for name in leaving if _is_own(rule, name, by_name[name], people, change.fleet)}
        # what a person shares with others is theirs as well
        if owners & machines or (owners and keys >= set(rule.recipients)):
            files = tuple(store.path(file.path) for file in store.files if rules.rule_of(file.path) == rule)
            others = tuple(people.name(key) for key in rule.recipients if key not in keys)
            why = _why_kept(change.secrets, store, rules, rule, declared()) if remove else None
            alone.append(OwnRule(rule.label, files, others, remove and why is None))
            if why is not None:
                which = f"{rule.label} with {', '.join(files) or 'no file'}"
                change = replace(change, notes=(*change.notes, f"{store.config}: {which} stays: {why}"))
            elif remove:
                numbers.add(rule.number)
                known -= set(files)
    if keys:
        left = [rule for rule in rules.rules if rule.number not in numbers]
        _require_others(left, keys, names, store.config)
    if numbers:
        text = rules_edit.remove_rules(change.rules_text(store), numbers)
        labels = ", ".join(each.label for each in alone)
        step = f"{store.config}: {labels} goes, for {names} alone"
        change = change.edited(store.config, text.encode(), step)
        for path in chain.from_iterable(each.files for each in alone):
            change = change.removed([path], f"remove {path}")
    return change, alone, known


def _why_kept(secrets: Secrets, store: Store, rules: Rules, rule: Rule, declared: Sequence[Declared]) -> str | None:
    """Why a rule may not go, where what other hosts declare is not known. FleetError where one declares a file of it.

    It may declare one that does not exist yet.
    """
    for each in declared:
        for path in each.files:
            place = without_links(secrets, path)
            home = secrets.store_of(place)
            if home is not None and home.config == store.config and rules.rule_of(store.below(place)) == rule:
                raise FleetError(f"{path}: {each.host_id} declares it, and it was to go; correct that first")
    unknown = next((each for each in declared if each.problem), None)
    return f"what {unknown.host_id} declares is not known: {unknown.problem}" if unknown is not None else None


def _is_machine(fleet: Fleet, name: str, keys: Collection[Recipient]) -> bool:
    """Whether this is a host, or was one."""
    return name in fleet.hosts or is_former(fleet, name) or any(key.bare in once_pinned(fleet) for key in keys)


def _is_own(rule: Rule, name: str, keys: Collection[Recipient], people: People, fleet: Fleet) -> bool:
    """Whether a rule is for this one and no other machine: it is a recipient, or would be one when it is enrolled."""
    others = [key for key in rule.recipients if key not in keys]
    names = fleet.hosts.keys() - {name}  # whoever is called like this one is not known to be it
    machines = [key for key in others if people.host(key) or people.others.get(key.value) in names]
    is_its = len(others) < len(rule.recipients) or rule.is_named_after(name)
    return is_its and not machines


def _require_others(rules: Iterable[Rule], keys: Collection[Recipient], who: str, config: str) -> None:
    for rule in rules:
        if rule.recipients and set(rule.recipients) <= set(keys):
            remedy = "name somebody else there and `nixherd secrets apply`, or have it go with --remove-secrets"
            raise FleetError(f"{config}: nobody but {who} can decrypt what {rule.label} is for; {remedy}")
