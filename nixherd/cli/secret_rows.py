"""Who can decrypt a file, as `nixherd secrets status` shows it."""

from collections.abc import Iterable, Mapping
from typing import Any

from nixherd.fleet.models import Fleet
from nixherd.trust.secrets.files import Encrypted
from nixherd.trust.secrets.keys import Recipient
from nixherd.trust.secrets.people import People, recipient_of_host, recipients_of_hosts
from nixherd.trust.secrets.store import Secrets


def readers(people: People, file: Encrypted | None) -> dict[str, Any]:
    """Return the values of a file's row: everybody, the key groups, how many of them it takes, the kinds of keys."""
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
