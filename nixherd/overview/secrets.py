"""Whether the files that a host is to decrypt name it, host by host, by the rules and by what hosts declare. Pure."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from nixherd.fleet.models import Fleet
from nixherd.overview.document import Difference, Kind, Mend
from nixherd.trust.findings import findings_of
from nixherd.trust.secrets.keys import Recipient
from nixherd.trust.secrets.people import People
from nixherd.trust.secrets.plan import Rekey
from nixherd.trust.secrets.rules import Rule
from nixherd.trust.secrets.store import Secrets

APPLY = ("nixherd", "secrets", "apply")


@dataclass(frozen=True)
class Readers:
    """Of one host: what is wrong with who can decrypt its files, a line each, `mend` what would mend that, `unknown`
    why that cannot be judged, and the rules that name it, `.sops.yaml:NUMBER`."""

    wrong: tuple[tuple[str, Mend | None], ...] = ()
    unknown: str | None = None
    rules: tuple[str, ...] = ()


@dataclass(frozen=True)
class SecretsSeen:
    """Of a fleet. `problem` is why nothing is known of its secrets; `differences` are those of no host."""

    hosts: Mapping[str, Readers] = field(default_factory=dict)
    differences: tuple[Difference, ...] = ()
    problem: str | None = None

    def of(self, host_id: str) -> Readers:
        return Readers(unknown=self.problem) if self.problem else self.hosts.get(host_id, Readers())


def look_at_secrets(fleet: Fleet, secrets: Secrets, declared: Mapping[str, Sequence[str] | None]) -> SecretsSeen:
    """Judge all hosts; `declared` are the files that each declares, None where that is not known."""
    plan, people = secrets.plan(fleet), secrets.people(fleet)
    rekeys = {each.path: each for each in plan.rekeys}
    wrong = defaultdict[str, list[tuple[str, Mend | None]]](list)
    unknown, readers, of_nobody = dict[str, str](), dict[str, set[str]](), list[Difference]()
    for path, file in secrets.files.items():
        rule = secrets.require_store(path).rules.rule_of(file.path)
        readers[path] = _hosts(people, rule.recipients if isinstance(rule, Rule) else ())
        concerned = readers[path] | _hosts(people, file.encrypted.recipients if file.encrypted else ())
        if path in plan.unknown:
            unknown = {**dict.fromkeys(concerned, f"{path}: {plan.unknown[path]}"), **unknown}
        if rekey := rekeys.get(path):
            touched = concerned if _is_otherwise(rekey) else _hosts(people, (*rekey.added, *rekey.removed))
            for host_id in touched:
                wrong[host_id].append((str(rekey), Mend.REKEY))
            if not touched:
                of_nobody.append(Difference(Kind.RECIPIENTS, str(rekey), Mend.REKEY, APPLY))
    for host_id, files in declared.items():
        wrong[host_id] += [(line, None) for line in _not_named(host_id, files or (), readers)]
    of_files = tuple(f"{path}: unknown: " for path in plan.unknown)
    findings = (each for each in findings_of(fleet, secrets, plan) if not each.startswith(of_files))
    of_nobody += [Difference(Kind.RECIPIENTS, each) for each in findings]
    rules = _rules(people, secrets)
    hosts = {id: Readers(tuple(wrong[id]), unknown.get(id), tuple(rules[id])) for id in fleet.hosts}
    return SecretsSeen(hosts, tuple(of_nobody))


def _hosts(people: People, recipients: Iterable[Recipient]) -> set[str]:
    return {host_id for each in recipients if (host_id := people.host(each))}


def _rules(people: People, secrets: Secrets) -> Mapping[str, list[str]]:
    """By host, the rules that name it."""
    found = defaultdict[str, list[str]](list)
    for store in secrets.stores:
        for rule in store.rules.rules:
            for host_id in sorted(_hosts(people, rule.recipients)):
                found[host_id].append(f"{store.config}:{rule.number}")
    return found


def _is_otherwise(rekey: Rekey) -> bool:
    """Whether more differs than who is in any group: all of its readers are concerned."""
    return len(rekey.names) > len(rekey.added) + len(rekey.removed)


def _not_named(host_id: str, files: Iterable[str], readers: Mapping[str, set[str]]) -> Iterator[str]:
    """What a host declares, and cannot decrypt by the rules; a line for each file."""
    for path in files:
        if path not in readers:
            yield f"{path}: it declares that file, which is not there, or not a secret file"
        elif host_id not in readers[path]:
            yield f"{path}: it declares that file, whose rule does not name it; `nixherd secrets add-host {host_id}`"
