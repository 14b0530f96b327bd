"""What is to be encrypted anew, and what is wrong and no run can mend. Pure.

A file's recipients are compared with its rule's as sops does it: by key group, by kind, with the threshold.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from nixherd.trust.secrets.files import Encrypted
from nixherd.trust.secrets.keys import Group, Recipient
from nixherd.trust.secrets.people import People
from nixherd.trust.secrets.places import path_of
from nixherd.trust.secrets.reading import SecretFile
from nixherd.trust.secrets.rules import CONFIG, Rule, Rules, Unknown


@dataclass(frozen=True, slots=True)
class Rekey:
    """A file whose recipients are not those that its rule names, in `config`. Shown as it is done.

    `groups` and `threshold` are the rule's. Nobody is `added` or `removed` where a key is only written otherwise.
    """

    path: str
    config: str
    added: tuple[Recipient, ...]
    removed: tuple[Recipient, ...]
    groups: tuple[Group, ...]
    threshold: int
    names: tuple[str, ...]
    """`+dev`, `-old`, what else differs, in that order"""

    def __str__(self) -> str:
        return f"{self.path}: {', '.join(self.names)}"

    @property
    def recipients(self) -> frozenset[Recipient]:
        """Everybody in any group."""
        return frozenset(key for group in self.groups for key in group)

    def is_done(self, file: Encrypted | None) -> bool:
        """Whether the file is as it is to be."""
        return file is not None and _same(file, self.groups, self.threshold)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be encrypted anew, and what is wrong and no run can mend.

    `unknown` says of a file, by its path, why it cannot be judged here; that is a finding as well. `notes` is what is
    good to know.
    """

    rekeys: tuple[Rekey, ...]
    findings: tuple[str, ...]
    unknown: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def state(self, path: str, file: SecretFile, rule: Rule | Unknown | None) -> str:
        """What is the matter with a file of this path and rule: `ok`, what differs, or why that is not known."""
        if path in self.unknown:
            return f"unknown: {self.unknown[path]}"
        if file.problem:
            return file.problem
        if rekey := next((each for each in self.rekeys if each.path == path), None):
            return ", ".join(rekey.names)
        return "no rule" if rule is None else "ok" if file.encrypted else "not encrypted"


def plan(secrets: str, rules: Rules, people: People, files: Iterable[SecretFile], prefix: str = "") -> Plan:
    """`secrets` is the directory of `.sops.yaml`; `prefix` that of the fleet, from its repository's top."""
    config = path_of(secrets, CONFIG, prefix)
    rekeys, findings, unknown = [], list[str](), dict[str, str]()
    used = set[int]()
    for file in sorted(files, key=lambda each: each.path):
        rule, where = rules.rule_of(file.path), path_of(secrets, file.path, prefix)
        if isinstance(rule, Rule):
            used.add(rule.number)
        if isinstance(rule, Unknown) or (rule is not None and rule.problem):
            unknown[where] = rule.why if isinstance(rule, Unknown) else f"{rule.label}: {rule.problem}"
            findings.append(f"{where}: unknown: {unknown[where]}")
            continue
        if file.problem is not None:
            findings.append(f"{where}: cannot be read: {file.problem}")
        elif rule is None:
            findings.append(f"{where}: no creation rule matches it; add one to {config}, or move it away")
        elif file.encrypted is None:
            remedy = "`sops encrypt --in-place` it, and change what was in it"
            remedy = f"`nixherd secrets edit {where}`, or remove it" if file.is_empty else remedy
            findings.append(f"{where}: is {'empty' if file.is_empty else 'not encrypted'}; {remedy}")
        else:
            if file.encrypted.encrypts_nothing and not file.is_empty:
                why = "what its rule says is to be encrypted is not in it (encrypted_regex?)"
                findings.append(f"{where}: nothing in it is encrypted: {why}; correct that, and encrypt it anew")
            if rekey := compare(where, config, file.encrypted, rule, people):
                rekeys.append(rekey)
    for rule in rules.rules:
        if rule.number not in used:
            findings.append(f"{config}: {rule.label} matches no file")
        if not rule.recipients:
            findings.append(f"{config}: {rule.label} names nobody who could decrypt")
    for recipient in rules.recipients:
        if not people.knows(recipient):
            remedy = "give it an anchor or a comment, or remove it"
            findings.append(f"{config}: {recipient.value} is not a host and nobody's; {remedy}")
    return Plan(tuple(rekeys), tuple(findings), unknown, tuple(_notes(config, rules, people)))


def _notes(config: str, rules: Rules, people: People) -> Iterator[str]:
    """Hosts that cannot open what they are recipients of: sops-nix looks for no SSH keys (its importAgeSSHKeys)."""
    for rule in rules.rules:
        named = {people.hosts.get(key): key for key in rule.recipients if not key.is_ssh}
        for key in rule.recipients:
            host = people.hosts.get(key)
            if key.is_ssh and host is not None and host not in named:
                opens = "sops-nix opens that only where sops.environment.SOPS_AGE_SSH_PRIVATE_KEY_FILE is the host key"
                yield f"{config}: {rule.label} names {host} by its SSH key itself; {opens}, or name its age key as well"
        for host in dict.fromkeys(people.hosts[key] for key in rule.recipients if key in people.hosts):
            if not rule.opens_to([key for key in rule.recipients if people.hosts.get(key) == host]):
                yield f"{config}: {rule.not_alone(host)}"


# A file and its rule


def compare(path: str, config: str, file: Encrypted, rule: Rule, people: People) -> Rekey | None:
    """What differs, if anything does."""
    if _same(file, rule.groups, rule.threshold):
        return None
    present, intended = dict.fromkeys(file.recipients), dict.fromkeys(rule.recipients)
    new = {key.bare: key for key in intended if key not in present}
    gone = {key.bare: key for key in present if key not in intended}
    added = tuple(key for bare, key in new.items() if bare not in gone)
    removed = tuple(key for bare, key in gone.items() if bare not in new)
    names = [*(f"+{people.name(key)}" for key in added), *(f"-{people.name(key)}" for key in removed)]
    names += [f"{people.name(key)} is written otherwise" for bare, key in new.items() if bare in gone]
    if len(file.groups) > 1 or len(rule.groups) > 1:
        names += _otherwise(file, rule, people)
    return Rekey(path, config, added, removed, rule.groups, rule.threshold, tuple(names))


def _same(file: Encrypted, groups: Sequence[Group], threshold: int) -> bool:
    return file.groups_are(groups) and file.threshold == threshold


def _otherwise(file: Encrypted, rule: Rule, people: People) -> Iterator[str]:
    """What differs of the key groups, beside who is in any."""
    common = {key.bare for key in file.recipients} & {key.bare for key in rule.recipients}
    shown = [_shown(groups, common, people) for groups in (file.groups, rule.groups)]
    if shown[0] != shown[1]:
        yield f"key groups {shown[0]} → {shown[1]}"
    counts = [f"{threshold} of {len(groups)}" for threshold, groups in _counted(file, rule)]
    if counts[0] != counts[1]:
        yield f"takes {counts[0]} → {counts[1]} key groups"


def _counted(file: Encrypted, rule: Rule) -> tuple[tuple[int, Sequence[Group]], tuple[int, Sequence[Group]]]:
    return (file.threshold, file.groups), (rule.threshold, rule.groups)


def _shown(groups: Sequence[Group], common: set[Recipient], people: People) -> str:
    """Who is in which group, of those who are in the file and in the rule: `alice, bob | carol`."""
    inside = (sorted(people.name(key) for key in group if key.bare in common) for group in groups)
    return " | ".join(", ".join(names) or "–" for names in inside)
