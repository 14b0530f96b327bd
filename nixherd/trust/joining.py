"""What a host joins: the rules of the files that its configuration declares, and those that are named.

Nothing else is a reason to be given a secret: neither that every other host has it, nor that a rule has the host's
name in it.
"""

import os
import shlex
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from nixherd.base.errors import FleetError, Usage
from nixherd.nix.declared import Declared, DeclaredSecret, by_file
from nixherd.trust.secrets.keys import Recipient, by_kind
from nixherd.trust.secrets.keys import named as keys_named
from nixherd.trust.secrets.people import People
from nixherd.trust.secrets.rules import CONFIG, Rule, Rules, Unknown, path_regex_of
from nixherd.trust.secrets.rules_text import scalar
from nixherd.trust.secrets.store import Secrets, Store


@dataclass(frozen=True)
class Admission:
    """How a host is to become a recipient.

    `rules`, by number, path_regex or a part of one, are joined beside what follows from `declared`. `replaces` names
    keys, or what they are called, in whose place the host's key comes; with `creates` a declared file that does not
    exist is made, and a rule for it.
    """

    declared: Declared
    rules: Collection[str | int] | None = None
    replaces: Collection[str] = ()
    creates: bool = False


@dataclass(frozen=True)
class Missing:
    """A declared file that a rule is missing for (`rule` is None), or that does not exist itself. Paths as everywhere.

    `readers` are the people to encrypt it for, nobody where it is not clear who that is: `why`.
    """

    path: str
    store: Store
    rule: Rule | None
    exists: bool
    secrets: tuple[DeclaredSecret, ...]
    readers: tuple[Recipient, ...] = ()
    why: str = ""

    def remedy(self, people: People) -> str:
        """What to write by hand, and what does it instead."""
        edit = f"nixherd secrets edit {shlex.quote(self.path)}"
        if self.rule is not None:
            return f"{self.path} does not exist: `{edit}` makes it, or --create (data secrets_create)"
        pattern = scalar(path_regex_of(self.store.below(self.path)), "'")
        if not self.readers:
            who = ", ".join(people.name(key) for key in self.store.rules.recipients if not people.host(key))
            line = f"{{path_regex: {pattern}, age: 'KEYS OF ITS READERS'}}"
            return f"{self.path}: no rule of {self.store.config} is for it; add `- {line}` ({self.why}: {who})"
        words = ", ".join(f"{kind}: '{','.join(values)}'" for kind, values in by_kind(self.readers).items())
        line = f"- {{path_regex: {pattern}, {words}}}"
        how = "to its creation_rules, or --create (data secrets_create)"
        return f"{self.path}: no rule of {self.store.config} is for it; add `{line}` {how}"


@dataclass(frozen=True)
class Joined:
    """`rules` to join, by configuration; what is `missing` for the rest; and `notes` on what else is to be known.

    `homeless` are declared files that no `.sops.yaml` is for, with why; `plain` those that sops has not encrypted, with
    what helps.
    """

    rules: Mapping[str, tuple[Rule, ...]]
    missing: tuple[Missing, ...] = ()
    homeless: Mapping[str, str] = field(default_factory=dict)
    plain: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def joined(secrets: Secrets, people: People, rules: Mapping[str, Rules], host_id: str, admission: Admission) -> Joined:
    """Tell what a host joins, by the rules as they are, by configuration.

    Usage where that is not known, or `admission` names what does not exist.
    """
    declared = admission.declared
    found: dict[str, dict[int, Rule]] = {config: {} for config in rules}
    for config, each in named(rules, admission.rules or ()):
        found[config][each.number] = each
    if declared.problem is not None:
        what = f"{host_id}: which secrets it declares is not known: {declared.problem}"
        if not found or admission.rules is None:
            raise Usage(f"{what}; correct that, or name rules with --rule (data secrets_rules): {labels(rules)}")
        return Joined(_sorted(found), notes=(what, *declared.unhandled, *_of_homes(secrets, rules, declared)))
    missing, homeless, plain = list[Missing](), dict[str, str](), dict[str, str]()
    notes = [*declared.unhandled, *_elsewhere(declared.of_system, host_id)]
    for path, of_file in _by_file(secrets, declared.of_system).items():
        store = secrets.store_of(path)
        if store is None:
            remedy = (
                "" if secrets.submodule_of(path) is None else f"; encrypt it for {host_id}'s key there, and commit that"
            )
            homeless[path] = f"{secrets.why_homeless(path)}{remedy}"
            continue
        rule, exists = _rule(store, rules, path, host_id, admission), _exists(secrets, path)
        if isinstance(rule, Rule):
            found[store.config][rule.number] = rule
        elif isinstance(rule, Unknown):
            notes.append(f"{path}: which rule of {store.config} is for it is not known: {rule.why}")
            continue
        if rule is None or not exists:
            readers, why = (rule.recipients, "") if rule else readers_of(store, people, secrets, path)
            missing.append(Missing(path, store, rule, exists, of_file, readers, why))
        if exists and (problem := _why_plain(secrets, path, rule)):
            plain[path] = problem
    if not declared.all_secrets and admission.rules is None:
        notes.append(f"{host_id} declares no secrets: it joins no rule; --rule (data secrets_rules) names one")
    notes += _of_homes(secrets, rules, declared)
    notes += _not_by_host_key(declared, host_id)
    notes += (f"{path}, which {host_id} declares, {what}" for path, what in plain.items())
    return Joined(_sorted(found), tuple(missing), homeless, plain, tuple(notes))


def _rule(
    store: Store, rules: Mapping[str, Rules], path: str, host_id: str, admission: Admission
) -> Rule | Unknown | None:
    rule = rules[store.config].rule_of(store.below(path))
    if isinstance(rule, Unknown) and admission.rules is None:
        what = f"{host_id}: which rule of {store.config} is for {path} is not known: {rule.why}"
        raise Usage(f"{what}; name it with --rule (data secrets_rules): {labels(rules)}")
    return rule


def _exists(secrets: Secrets, path: str) -> bool:
    return path in secrets.files or os.path.lexists(secrets.root / path)


def _why_plain(secrets: Secrets, path: str, rule: Rule | None) -> str | None:
    """Why nobody decrypts a file that is there, and what to do; None for one that sops has encrypted."""
    file = secrets.files.get(path)
    if file is not None and not file.is_foreign:  # what is wrong with it otherwise stands in the way by itself
        return None
    if file is not None and file.problem is not None:
        return f"cannot be read: {file.problem}"
    if rule is None:
        return f"is not encrypted; move it away, and give its values to `nixherd secrets edit {path}` afterwards"
    return "is not encrypted; `sops encrypt --in-place` it, and change what was in it"


def _sorted(found: Mapping[str, Mapping[int, Rule]]) -> dict[str, tuple[Rule, ...]]:
    return {config: tuple(each for _, each in sorted(numbered.items())) for config, numbered in found.items()}


def _by_file(secrets: Secrets, declared: Iterable[DeclaredSecret]) -> dict[str, tuple[DeclaredSecret, ...]]:
    """What is declared by file; for a link that leads to a secret of this repository, by that."""
    return by_file(replace(each, file=without_links(secrets, each.file)) for each in declared if each.file is not None)


def without_links(secrets: Secrets, path: str) -> str:
    """The path of the secret of this repository that a link leads to; any other path as it is."""
    try:
        real = os.path.relpath((secrets.root / path).resolve(), secrets.root.resolve())
    except (OSError, RuntimeError):  # RuntimeError: a link to itself
        return path
    return real if real in secrets.files else path


def _elsewhere(secrets: Sequence[DeclaredSecret], host_id: str) -> Iterator[str]:
    for origin in sorted({secret.origin for secret in secrets if secret.file is None and secret.origin}):
        yield f"{host_id} declares {origin}: it is encrypted for it there"


def _of_homes(secrets: Secrets, rules: Mapping[str, Rules], declared: Declared) -> Iterator[str]:
    """What homes declare and nobody could decrypt: they do so with people's keys, never with the host's."""
    for path, of_file in _by_file(secrets, declared.of_homes).items():
        users = " and ".join(sorted({str(secret.user) for secret in of_file}))
        store = secrets.store_of(path)
        rule = rules[store.config].rule_of(store.below(path)) if store else None
        if rule is None:
            yield f"{path}, which {users}'s home declares: no rule is for it; people's keys decrypt it"
        elif not _exists(secrets, path):
            yield f"{path}, which {users}'s home declares, does not exist"


def _not_by_host_key(declared: Declared, host_id: str) -> Iterator[str]:
    for identity in declared.identities:
        if identity.user is None and not identity.age_ssh_keys and declared.of_system:
            with_what = identity.age_key_file or identity.gnupg_home or "an RSA key, as PGP has it"
            yield f"{host_id} decrypts with {with_what}, not with its host key, says sops.age of its configuration"


# Rules by name


def labels(rules: Mapping[str, Rules]) -> str:
    """All rules, as they can be named."""
    return "; ".join(f"{config}: {rule.label}" for config, each in rules.items() for rule in each.rules) or "none"


def named(rules: Mapping[str, Rules], given: Iterable[str | int]) -> list[tuple[str, Rule]]:
    """Find rules by number, path_regex, or a part of one, `CONFIG:` before it where there are several files.

    Usage, with all of them, where that is none or several.
    """
    return [_named(rules, str(each)) for each in given]


def _named(rules: Mapping[str, Rules], given: str) -> tuple[str, Rule]:
    everyone = [(config, rule) for config, each in rules.items() for rule in each.rules]
    config, colon, rest = given.rpartition(":")
    if not given.strip() or (colon and config in rules and not rest.strip()):
        raise Usage(f"{given!r} names no rule; write its number or a part of its path_regex: {labels(rules)}")
    tries = [(everyone, given)]
    if config in rules:
        tries.insert(0, ([each for each in everyone if each[0] == config], rest))
    for candidates, text in tries:
        exact = [each for each in candidates if text in (str(each[1].number), each[1].path_regex)]
        found = exact or [each for each in candidates if text in (each[1].path_regex or "")]
        if len(found) == 1:
            return found[0]
        if found:
            which = "; ".join(f"{where}: {rule.label}" for where, rule in found)
            raise Usage(f"rule {given} is several: {which}; name it by its whole path_regex, or as FILE:NUMBER")
    raise Usage(f".sops.yaml has no rule {given}; there are {labels(rules)}")


# Keys by name


def called(people: People, rules: Mapping[str, Rules], given: str) -> Recipient:
    """Find the key that is meant by its text, or by what it is called. Usage where that is none or several."""
    known = dict.fromkeys(key for each in rules.values() for key in each.known)
    found = named_keys(known, given)
    found = found or [key for key in known if given in (people.name(key), people.others.get(key.value))]
    if len(found) == 1:
        return found[0]
    if found:
        raise Usage(f"{given} is what {len(found)} keys are called: {', '.join(key.value for key in found)}; name one")
    names = ", ".join(map(people.name, known))
    raise Usage(
        f"nobody is called {given if given.strip() else repr(given)} in {' or '.join(rules)}; there are {names}"
    )


def named_keys(keys: Collection[Recipient], given: str) -> list[Recipient]:
    """The keys that are meant by the text of one. Usage where that is several."""
    try:
        return keys_named(keys, given)
    except ValueError as error:
        raise Usage(str(error)) from None


# Readers


def readers_of(store: Store, people: People, secrets: Secrets, path: str) -> tuple[tuple[Recipient, ...], str]:
    """Who is to read a file that no rule is for yet, beside the host; or nobody, and why that is not clear.

    Those who can read it already; else those of the rules for one host each; else those whom every rule names.
    """
    file = secrets.files.get(path)
    if file is not None and file.encrypted is not None:
        return tuple(dict.fromkeys(file.encrypted.recipients)), ""
    others = [tuple(key for key in rule.recipients if not people.host(key)) for rule in store.rules.rules]
    alone = [
        readers
        for rule, readers in zip(store.rules.rules, others, strict=True)
        if readers and len(rule.recipients) == len(readers) + 1
    ]
    for candidates in (alone, others):
        if candidates and all(candidates) and len({frozenset(readers) for readers in candidates}) == 1:
            return candidates[0], ""
    return (), "the rules there are not for the same people"


def require_covered(found: Joined, people: People, host_id: str, admission: Admission) -> None:
    """Usage for a file that the host declares and that is in plain text, or no rule is for, with what to do.

    Not where rules are named.
    """
    if found.homeless and admission.rules is None:
        files = "; ".join(f"{path}, {why}" for path, why in found.homeless.items())
        is_here = any(CONFIG in why for why in found.homeless.values())
        remedy = (
            f"{'make one there, or ' if is_here else ''}name rules of this repository with --rule (data secrets_rules)"
        )
        raise Usage(f"{host_id} declares {files}; {remedy}")
    without = [each for each in found.missing if each.rule is None]
    if without and admission.rules is None and not admission.creates:
        raise Usage(f"{host_id}: {'; '.join(each.remedy(people) for each in without)}")
    if found.plain and admission.rules is None:
        files = "; ".join(f"{path}, which {what}" for path, what in found.plain.items())
        raise Usage(f"{host_id} declares {files}")
    unclear = [each for each in without if not each.readers]
    if unclear and admission.creates:
        raise FleetError(f"{host_id}: {'; '.join(each.remedy(people) for each in unclear)}")
