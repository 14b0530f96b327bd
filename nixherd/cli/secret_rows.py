"""Who can decrypt a file, as `nixherd secrets status` shows it."""

from collections.abc import Iterable, Mapping
from typing import Any

from nixherd.trust.secrets.files import Encrypted
from nixherd.trust.secrets.people import People


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
