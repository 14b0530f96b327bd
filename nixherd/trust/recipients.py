"""A host's key among the recipients of secrets, and out of them, as changes of the fleet's files.

A key that is there already is a host's only where that is known: by hosts.nix as it is or was (`former`), never by what
it is called. A person may have called a key after a laptop.
"""

import shlex
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from itertools import chain
from typing import Any

from nixherd.base.errors import FleetError, Usage
from nixherd.fleet.git import side_by_side
from nixherd.fleet.load import ABSENT, Leaf
from nixherd.fleet.models import HOSTS, Host
from nixherd.nix.commands import nix_string
from nixherd.nix.edit import NixText, attribute_name
from nixherd.ssh import age
from nixherd.trust.enrol import Wanted
from nixherd.trust.former import forms_of, its_alone, known_keys, others_with
from nixherd.trust.joining import Admission, Missing, called, joined, named_keys, require_covered
from nixherd.trust.secrets import rules_edit
from nixherd.trust.secrets.keys import Recipient
from nixherd.trust.secrets.keys import age as age_key
from nixherd.trust.secrets.people import People
from nixherd.trust.secrets.placeholders import NewFile
from nixherd.trust.secrets.plan import Plan
from nixherd.trust.secrets.rules import Rule, Rules
from nixherd.trust.secrets.store import Store

_SHOWN = 5  # files that differ


class NotARecipient(Usage):
    """Nobody among the recipients is called like that."""


def trusted(change: Wanted, host: Host, public_key: str, admission: Admission) -> Wanted:
    """With the host's key as a recipient of what it declares, and pinned in hosts.nix, or in nixherd.nix without one.

    Usage when what it joins is not known, FleetError when the key can be no recipient, CannotEdit when a file cannot be
    edited faithfully.
    """
    try:
        recipient = age_key(age.recipient(public_key))
    except FleetError as error:
        raise FleetError(f"{host.id}: its host key: {error}") from None
    _require_nobodys(change, host, public_key)
    gone: tuple[Recipient, ...] = ()
    change = replace(change, host_key=recipient)
    if change.secrets:
        change, gone = _in_place(change, host, public_key, admission)
        change = _joining(change, host, recipient, admission)
    return with_rekeys(_with_pin(change, host, public_key), (recipient, *gone))


def pinned(change: Wanted, host: Host, public_key: str) -> Wanted:
    """With the host's key pinned, in hosts.nix or nixherd.nix, and no more. FleetError when it is another machine's."""
    _require_nobodys(change, host, public_key)
    return _with_pin(change, host, public_key)


def _require_nobodys(change: Wanted, host: Host, public_key: str) -> None:
    if other := next(others_with(change.fleet, host.id, public_key), None):
        raise FleetError(f"{host.id}: this is the host key of {other}; each machine needs its own")


def _with_pin(change: Wanted, host: Host, public_key: str) -> Wanted:
    if host.public_key is not None and host.public_key.split()[:2] == public_key.split()[:2]:
        return change
    file = change.fleet.file
    path = (host.id, "publicKey") if file == HOSTS else ("hosts", host.id, "publicKey")
    text = _pin(NixText(file, change.current(file) or b"{\n}\n"), path, nix_string(public_key))
    # what has nothing in it is a leaf, until it has
    intended: dict[Leaf, Any] = {(file, *path[:depth]): ABSENT for depth in range(len(path))} if file != HOSTS else {}
    intended[(file, *path)] = public_key
    change = change.edited(file, text, f"{file}: {'.'.join(path)} pins its host key", intended)
    hosts = {**change.fleet.hosts, host.id: replace(host, public_key=public_key)}
    return replace(change, fleet=replace(change.fleet, hosts=hosts))


def _pin(text: NixText, path: tuple[str, ...], value: str) -> bytes:
    """Set the key, with the sets around it that the file does not have yet. CannotEdit where they are computed."""
    for depth in range(1, len(path)) if text.name != HOSTS else ():
        if not text.mentions(path[:depth]):
            name = ".".join(map(attribute_name, path[depth:]))
            if depth == 1:
                return text.add(path[:1], ["{", f"  {name} = {value};", "}"])
            return text.add(path[:depth], [f"{{ {name} = {value}; }}"])
    return text.set(path, value)


def _in_place(
    change: Wanted, host: Host, public_key: str, admission: Admission
) -> tuple[Wanted, tuple[Recipient, ...]]:
    """With its key in place of those that were the host's, which are returned too."""
    rules, people = change.rules(), _people(change)
    named = tuple(_replaced(change, people, host.id, each) for each in admission.replaces)
    recipient, *forms = forms_of(public_key)
    known, gone = known_keys(change.fleet, host.id) | set(forms), list[Recipient]()
    for store in change.secrets.stores:
        for key in rules[store.config].known:
            if key == recipient or not (key in named or key.bare in known):
                continue
            if key not in named and (other := people.host(key)) not in (None, host.id):
                what = f"{host.id}: {key.value} was its key once and is {other}'s now"
                steps = (f"remove-host {shlex.quote(key.value)}", f"add-host {host.id}", f"add-host {other}")
                remedy = ", ".join(f"`nixherd secrets {step}`" for step in steps)
                raise FleetError(f"{what}; {remedy}: then each decrypts what it declares")
            text = rules_edit.replace(change.rules_text(store), key, recipient)
            how = "has a new key" if key.is_x25519 else "is named by its age key, which sops-nix decrypts with"
            change = change.edited(store.config, text.encode(), f"{store.config}: {host.id} {how}")
            gone.append(key)
    return change, tuple(gone)


def _replaced(change: Wanted, people: People, host_id: str, given: str) -> Recipient:
    key = called(people, change.rules(), given)
    if (other := people.host(key)) not in (None, host_id):
        raise Usage(f"--replace {given}: that is the host key of {other}; take {other} out first")
    return key


def _joining(change: Wanted, host: Host, recipient: Recipient, admission: Admission) -> Wanted:
    rules, people = change.rules(), _people(change)
    found = joined(change.secrets, people, rules, host.id, admission)
    require_covered(found, people, host.id, admission)
    change = replace(change, notes=(*change.notes, *found.notes))
    for store in change.secrets.stores:
        joining = [rule for rule in found.rules[store.config] if recipient not in rule.recipients]
        new = [each for each in found.missing if admission.creates and each.rule is None and each.store == store]
        if not joining and not new:
            continue
        _require_nobody_else(store, rules[store.config].known, people, host.id, recipient)
        numbers = [rule.number for rule in joining]
        text = rules_edit.add(change.rules_text(store), recipient, host.id, numbers, beside=people.hosts)
        steps = [f"joins {', '.join(rule.label for rule in joining)}"] if joining else []
        for missing in new:
            path, whole = store.below(missing.path), (*missing.readers, recipient)
            text = rules_edit.add_rule(text, path, whole, comment=f"{host.id}'s own.")
            steps.append(f"has a rule for {missing.path}, which {_names(people, missing.readers)} can read as well")
        change = change.edited(store.config, text.encode(), f"{store.config}: {host.id} {', and '.join(steps)}")
    for config, each in change.rules().items():
        joined_now = {rule.number for rule in found.rules[config]}
        closed = (rule for rule in each.rules if rule.number in joined_now and not rule.opens_to({recipient}))
        change = replace(change, notes=(*change.notes, *(f"{config}: {rule.not_alone(host.id)}" for rule in closed)))
    for missing in found.missing:
        if not admission.creates:
            change = replace(change, notes=(*change.notes, f"{host.id}: {missing.remedy(people)}"))
        elif not missing.exists:
            readers = dict.fromkeys((*missing.readers, recipient))
            names = _names(people, [key for key in readers if key != recipient])
            made = _new_file(missing, f"{names} and {host.id}", readers)
            change = replace(change, created=(*change.created, made), seen={made.path: None, **change.seen})
    return change


def _new_file(missing: Missing, names: str, readers: Collection[Recipient]) -> NewFile:
    try:
        return NewFile.of(missing.path, missing.store.config, missing.secrets, readers, names)
    except ValueError as error:
        raise FleetError(f"{missing.path}: {error}; make it by hand") from None


def _names(people: People, keys: Collection[Recipient]) -> str:
    return ", ".join(people.name(key) for key in keys)


def _require_nobody_else(
    store: Store, known: Collection[Recipient], people: People, host_id: str, recipient: Recipient
) -> None:
    """Usage where another key has the host's name in a store: nothing says that it is the host's."""
    other = next((key for key in known if people.others.get(key.value) == host_id and key.bare != recipient), None)
    if other is not None:
        whose = f", of {people.host(other)}" if people.host(other) else ""
        what = f"{store.config}: {host_id} is what another key is called there{whose}: {other.value}"
        remedy = f"--replace {host_id} (data secrets_replace) if it was this host's, or give it another name"
        raise Usage(f"{what}; nothing says that it is the host's key: {remedy}")


def _people(change: Wanted) -> People:
    return change.secrets.people(change.fleet, change.rules())


# Out of it


def keys_of(change: Wanted, store: Store, host_id: str) -> list[Recipient]:
    """The recipients in a `.sops.yaml` that are known to be a host's."""
    known = its_alone(change.fleet, host_id)
    return [key for key in change.rules()[store.config].known if key.bare in known]


def namesakes(change: Wanted, host_id: str) -> list[tuple[Store, Recipient]]:
    """The recipients that are called like a host, and that nothing says are its."""
    all_rules, known = change.rules(), known_keys(change.fleet, host_id)
    return [
        (store, key)
        for store, rules in ((store, all_rules[store.config]) for store in change.secrets.stores)
        for key in rules.known
        if rules.names.get(key.value) == host_id and key.bare not in known
    ]


def namesakes_stay(change: Wanted, host_id: str) -> list[str]:
    """A line for each of them that says so."""
    return [
        f"{store.config}: {key.value} stays: it is called {host_id}, and nothing says that it is its key"
        for store, key in namesakes(change, host_id)
    ]


def untrusted(change: Wanted, host_id: str) -> Wanted:
    """Without a recipient anywhere; hosts.nix stays. Usage when it is none, or which key is meant is not known.

    `host_id` may be a key instead, or what one is called that is not a host's.
    """
    return without_keys(change, {host_id: frozenset(meant(change, host_id))})


def without_keys(change: Wanted, leaving: Mapping[str, Collection[Recipient]]) -> Wanted:
    """Without these keys in any rule and file; `leaving` has them by whom they belong to, bare or as written."""
    gone = frozenset(chain.from_iterable(leaving.values()))
    for store in change.secrets.stores:
        text = change.rules_text(store)
        for key in change.rules()[store.config].known:
            if key.bare in gone or key in gone:
                text = rules_edit.remove(text, key)
        change = change.edited(store.config, text.encode(), f"{store.config}: {' and '.join(leaving)} leaves")
    notes = chain.from_iterable(namesakes_stay(change, name) for name in leaving)
    return with_rekeys(replace(change, notes=(*change.notes, *notes)), gone)


def meant(change: Wanted, given: str) -> Iterator[Recipient]:
    """The recipients that are meant by a host's id, by what a key is called that is not a host's, or by a key.

    Usage when there is none, or which is meant is not known.
    """
    known, alone = known_keys(change.fleet, given), its_alone(change.fleet, given)
    rules, people = change.rules(), _people(change)
    there = {key for each in rules.values() for key in each.known}
    there |= {key for each in change.secrets.encrypted.values() for key in each.recipients}
    if found := [key for key in there if key.bare in alone]:
        yield from found
    elif shared := sorted((key for key in there if key.bare in known), key=str):
        what = f"{shared[0].value} is the host key of {people.host(shared[0].bare)} as well, and would leave with it"
        raise Usage(f"{given}: {what}; give the other a key of its own, or name the key to remove it")
    elif same := named_keys(there, given):
        yield from same
    elif (names := namesakes(change, given)) and given in change.fleet.hosts:
        keys = ", ".join(key.value for _, key in names)
        raise Usage(
            f"{given}: nothing says that {keys}, which is called so, is the host's key; name the key to remove it"
        )
    elif names or given in {people.name(key) for key in there if not people.host(key)}:
        yield called(people, rules, given)
    else:
        everybody = sorted({people.name(key) for each in rules.values() for key in each.recipients})
        given = given if given.strip() else repr(given)
        raise NotARecipient(f"{given} is not a recipient in {' or '.join(rules)}; there are {', '.join(everybody)}")


# Files


def with_rekeys(change: Wanted, keys: Collection[Recipient] | None = None) -> Wanted:
    """With every secret file encrypted to whom the rules name. FleetError when one of them cannot be read.

    With `keys` only the files that the change concerns: whose rules say something else now, or that one of these keys
    enters or leaves. What else differs stays, and is noted.
    """
    return _with_rekeys(change, *_planned(change), keys)


def _planned(change: Wanted) -> tuple[Plan, list[str]]:
    """What follows from the rules that are to be; and which `.sops.yaml` have changes that are not committed."""
    return side_by_side(lambda: change.secrets.plan(change.fleet, change.rules()), lambda: _not_committed(change))


def _with_rekeys(
    change: Wanted, plan: Plan, dirty: Collection[str], keys: Collection[Recipient] | None = None
) -> Wanted:
    rules = change.rules()
    changed = {path for path in change.secrets.files if keys is None or _is_changed(change, rules, path)}
    for path in sorted(changed):
        file = change.secrets.files[path]
        if file.problem and not file.is_foreign:
            raise FleetError(f"{change.root / path}: cannot be read: {file.problem}")
    meant = tuple(
        rekey for rekey in plan.rekeys if rekey.path in changed or {*rekey.added, *rekey.removed} & set(keys or ())
    )
    if nobodys := next((rekey for rekey in meant if not rekey.recipients), None):
        raise FleetError(
            f"{nobodys.path}: its rule in {nobodys.config} names nobody who could decrypt it; name somebody"
        )
    seen = {rekey.path: change.secrets.content(rekey.path) for rekey in meant}
    notes = change.notes
    if others := [rekey.path for rekey in plan.rekeys if rekey.path not in seen]:
        more = f" and {len(others) - _SHOWN} more" if len(others) > _SHOWN else ""
        which = f"{', '.join(others[:_SHOWN])}{more}"
        notes = (*notes, f"not encrypted for whom the rules name, and left so: {which}; see `nixherd secrets plan`")
    why = "has changes that are not committed; commit it as well, or the files are not as it says there"
    notes = (*notes, *(f"{path}: {why}" for path in dirty if any(rekey.config == path for rekey in meant)))
    return replace(change, rekeys=meant, seen={**seen, **change.seen}, notes=notes)


def _not_committed(change: Wanted) -> list[str]:
    configs = [store.config for store in change.secrets.stores if store.config not in change.files]
    repository = change.secrets.repository if configs else None
    return repository.changed(configs) if repository is not None else []


def as_ruled(change: Wanted) -> tuple[Wanted, tuple[str, ...]]:
    """With every secret file encrypted for whom its rule names; and the files, noted, of which that remains unknown."""
    plan, dirty = _planned(change)
    change = _with_rekeys(change, plan, dirty)
    left = _unmet(change, plan)
    notes = (f"{path}: is not known to be as its rule says; `nixherd secrets status` says why" for path in left)
    return replace(change, notes=(*change.notes, *notes)), left


def _unmet(change: Wanted, plan: Plan) -> tuple[str, ...]:
    """The files that are not known to be encrypted for whom their rules name, whatever is encrypted anew."""
    rules = change.rules()
    plain = (path for path, file in change.secrets.files.items() if file.encrypted is None)
    stores = ((path, change.secrets.require_store(path)) for path in plain)
    named = [path for path, store in stores if isinstance(rules[store.config].rule_of(store.below(path)), Rule)]
    return tuple(sorted({*plan.unknown, *named}))


def _is_changed(change: Wanted, rules: Mapping[str, Rules], path: str) -> bool:
    """Whether a file is to be for others than before, by its rule."""
    store = change.secrets.require_store(path)
    before, now = (each.rule_of(store.below(path)) for each in (store.rules, rules[store.config]))
    return _meaning(before) != _meaning(now)


def _meaning(rule: object) -> object:
    return (getattr(rule, "groups", None), getattr(rule, "threshold", None))
