"""What `nixherd secrets status` shows, as rows."""

from collections.abc import Iterable, Mapping
from typing import Any

from nixherd.fleet.models import Fleet
from nixherd.trust.secrets.files import Encrypted, Format
from nixherd.trust.secrets.identities import Opens, Operator
from nixherd.trust.secrets.keys import Recipient
from nixherd.trust.secrets.people import People, recipient_of_host, recipients_of_hosts
from nixherd.trust.secrets.plan import Plan
from nixherd.trust.secrets.rules import Rule
from nixherd.trust.secrets.store import Secrets

_YOU = {Opens.YES: "yes", Opens.NO: "no", Opens.UNKNOWN: "unknown"}


def files_of(fleet: Fleet, secrets: Secrets, plan: Plan, who: Operator) -> list[dict[str, Any]]:
    """Return a row for each file: where it is, its rule, who can decrypt it, and whether that is who should."""
    rows, people = list[dict[str, Any]](), secrets.people(fleet)
    for path, file in secrets.files.items():
        store = secrets.require_store(path)
        rule = store.rules.rule_of(file.path)
        rows.append(
            {
                "file": path,
                "format": str(Format.of(path)),
                "config": store.config,
                "rule": rule.number if isinstance(rule, Rule) else None,
                **_readers(people, file.encrypted),
                "you": _YOU[who.reads(file.encrypted)] if file.encrypted else None,
                "state": plan.state(path, file, rule),
            }
        )
    return rows


def _readers(people: People, file: Encrypted | None) -> dict[str, Any]:
    """Return everybody, the key groups, how many of them it takes, and the kinds of keys."""
    groups = file.groups if file else ()
    return {
        "recipients": [people.name(key) for key in (file.recipients if file else ())],
        "groups": [[people.name(key) for key in group] for group in groups],
        "threshold": file.threshold if file else None,
        "kinds": sorted({str(key.kind) for group in groups for key in group}),
    }


def for_people(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows of a table: several key groups with a bar between them, `alice,bob | carol (2 of 2)`."""
    return [{**row, "recipients": _groups(row) or row["recipients"]} for row in rows]


def _groups(row: Mapping[str, Any]) -> str | None:
    groups = row["groups"]
    if len(groups) < 2:
        return None
    return f"{' | '.join(','.join(names) for names in groups)} ({row['threshold']} of {len(groups)})"


def hosts_of(fleet: Fleet, secrets: Secrets) -> list[dict[str, Any]]:
    """Return a row for each host: its recipient, and the rules that name it."""
    rows, ids = [], recipients_of_hosts(fleet)
    for host in fleet.hosts.values():
        recipient = recipient_of_host(host)
        all_rules = ((store.config, rule) for store in secrets.stores for rule in store.rules.rules)
        named = [(config, rule) for config, rule in all_rules if host.id in map(ids.get, rule.recipients)]
        joined = [f"{config}:{rule.number}" for config, rule in named]
        rows.append({"host": host.id, "recipient": recipient.value if recipient else None, "rules": joined})
    return rows


def others_of(fleet: Fleet, secrets: Secrets) -> list[dict[str, Any]]:
    """Everybody who is a recipient and no host."""
    people, found = secrets.people(fleet), dict[Recipient, list[str]]()
    for store in secrets.stores:
        for rule in store.rules.rules:
            for key in rule.recipients:
                found.setdefault(key, []).append(f"{store.config}:{rule.number}")
    others = ((key, joined) for key, joined in found.items() if people.host(key) is None)
    return [
        {"name": people.others.get(key.value), "recipient": key.value, "kind": str(key.kind), "rules": joined}
        for key, joined in others
    ]
