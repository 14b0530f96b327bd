"""Who should be able to read each secret file, who can, and what follows; pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from nixherd.fleet.models import Fleet
from nixherd.ssh.age import recipient_of
from nixherd.trust.secrets.files import Encrypted
from nixherd.trust.secrets.rules import Rules


@dataclass(frozen=True, slots=True)
class People:
    """What recipients are called: hosts by hosts.nix, everybody else by what `.sops.yaml` calls them."""

    hosts: Mapping[str, str]
    """by recipient, the host's id"""
    others: Mapping[str, str] = field(default_factory=dict)
    """by recipient, the name there; hosts may be among them"""

    @classmethod
    def of(cls, fleet: Fleet, rules: Rules) -> "People":
        return cls(recipients_of_hosts(fleet), rules.names)

    def name(self, recipient: str) -> str:
        return self.hosts.get(recipient) or self.others.get(recipient) or f"{recipient[:12]}…"

    def knows(self, recipient: str) -> bool:
        return recipient in self.hosts or recipient in self.others


def recipients_of_hosts(fleet: Fleet) -> dict[str, str]:
    """By age recipient, the id of each host whose key is known and can be one."""
    found = {}
    for host in fleet.hosts.values():
        if host.public_key is not None and host.public_key.startswith("ssh-ed25519 "):
            found[recipient_of(host.public_key)] = host.id
    return found


@dataclass(frozen=True, slots=True)
class SecretFile:
    """A file below the secrets' directory, its path relative to that. `problem` says why it cannot be read."""

    path: str
    encrypted: Encrypted | None = None
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Rekey:
    """A file whose recipients are not those that its rule names. Shown as it is done."""

    path: str
    added: tuple[str, ...]
    removed: tuple[str, ...]
    wanted: frozenset[str]
    names: tuple[str, ...]
    """`+dev`, `-old`, in that order"""

    def __str__(self) -> str:
        return f"{self.path}: {', '.join(self.names)}"


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be encrypted anew, and what is wrong and no run can mend."""

    rekeys: tuple[Rekey, ...]
    findings: tuple[str, ...]


def plan(secrets: str, rules: Rules, people: People, files: Iterable[SecretFile]) -> Plan:
    """`secrets` is the directory's name, for messages."""
    rekeys, findings = [], list[str]()
    used = set[int]()
    for file in sorted(files, key=lambda each: each.path):
        rule = rules.rule_of(file.path)
        if rule is not None:
            used.add(rule.number)
        where = f"{secrets}/{file.path}"
        if file.problem is not None:
            findings.append(f"{where}: cannot be read: {file.problem}")
        elif rule is None:
            findings.append(f"{where}: no creation rule matches it; add one to {secrets}/.sops.yaml, or move it away")
        elif file.encrypted is None:
            findings.append(f"{where}: is not encrypted; `sops encrypt --in-place` it, and change what was in it")
        else:
            present, wanted = file.encrypted.recipients, rule.recipients
            added = tuple(key for key in wanted if key not in present)
            removed = tuple(key for key in present if key not in wanted)
            if added or removed:
                names = (*(f"+{people.name(key)}" for key in added), *(f"-{people.name(key)}" for key in removed))
                rekeys.append(Rekey(file.path, added, removed, frozenset(wanted), names))
    for rule in rules.rules:
        if rule.number not in used:
            findings.append(f"{secrets}/.sops.yaml: {rule.label} matches no file")
        if not rule.recipients and not rule.others:
            findings.append(f"{secrets}/.sops.yaml: {rule.label} names nobody who could decrypt")
    for recipient in rules.recipients:
        if not people.knows(recipient):
            findings.append(
                f"{secrets}/.sops.yaml: {recipient} is no host and nobody's; "
                "give it an anchor or a comment, or remove it"
            )
    return Plan(tuple(rekeys), tuple(findings))
