"""What hosts said when they were last asked, kept so that one that does not answer is shown as it was last known.

`STATUS/seen.json` below the fleet's state directory, by host.
"""

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nixherd.base.files import lock, write_whole
from nixherd.fleet.revisions import Note
from nixherd.overview.expected import STATUS
from nixherd.overview.machine import Seen


@dataclass(frozen=True)
class LastSeen:
    """`at` is when it answered, UTC; `missing_since` when it first did not, None where it answered the last time."""

    at: str | None = None
    address: str | None = None
    seen: Seen | None = None
    missing_since: str | None = None

    @property
    def notes(self) -> tuple[Note, ...]:
        """What the machine noted of deployments."""
        return (self.seen.notes if self.seen else None) or ()


class SeenBefore:
    """What is kept of all hosts of a fleet. Whoever can write below the state directory is the operator."""

    def __init__(self, state_directory: Path) -> None:
        self._file = state_directory / STATUS / "seen.json"

    def recall(self) -> dict[str, LastSeen]:
        """By host; what cannot be read is as if it had never been seen."""
        return {host: each for host, values in self._read().items() if (each := _parsed(values))}

    @property
    def addresses(self) -> dict[str, str]:
        """By host, where it answered last."""
        found = {host: values.get("address") for host, values in self._read().items() if isinstance(values, dict)}
        return {host: address for host, address in found.items() if isinstance(address, str)}

    def address_of(self, host: str) -> str | None:
        """Where it answered last."""
        return self.addresses.get(host)

    def keep(self, hosts: Mapping[str, LastSeen]) -> None:
        """Keep it beside what is kept of others. Where it cannot be written, the next time knows less."""
        with suppress(OSError):
            self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            held = lock(self._file.with_name("lock"), wait=True)
            try:
                values = {**self._read(), **{host: _written(each) for host, each in hosts.items()}}
                write_whole(self._file, json.dumps(values))
            finally:
                os.close(held)

    def _read(self) -> dict[str, Any]:
        try:
            found = json.loads(self._file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}


def _written(each: LastSeen) -> dict[str, Any]:
    seen = each.seen.to_json() if each.seen else None
    return {"at": each.at, "address": each.address, "seen": seen, "missing_since": each.missing_since}


def _parsed(values: Any) -> LastSeen | None:
    try:
        seen = Seen.from_json(values["seen"]) if values["seen"] is not None else None
        return LastSeen(values["at"], values["address"], seen, values["missing_since"])
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
