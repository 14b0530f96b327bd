"""The one script that a machine is asked by, and what its answer comes to.

A machine may say anything: texts stay texts, a number that cannot be is not known, and so many characters are read.
"""

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any

from nixherd.base.answers import below
from nixherd.base.becoming_root import Become
from nixherd.base.errors import FleetError
from nixherd.base.reasons import failure
from nixherd.deploy.machine import ANSWER_DEADLINE, Asked
from nixherd.deploy.protocol import Kind
from nixherd.deploy.running import (
    HOME_PROFILE,
    PROFILE,
    Running,
    ask_running,
    home_script,
    parse_running,
    system_script,
)
from nixherd.fleet.models import Access
from nixherd.fleet.revisions import Note
from nixherd.overview.document import Space
from nixherd.overview.updates import PULL, UPGRADE

MOST = 1 << 20  # characters of an answer
_KIB = 1024
_MOST_BYTES = 1 << 62
_NOTES = 20
_NUMBER = re.compile(r"[0-9]{1,19}", re.ASCII)
_ACTIVE = {"active": True, "reloading": True, "activating": True, "inactive": False, "failed": False}


@dataclass(frozen=True)
class Seen:
    """What a machine said of itself. `running` is None where it says nothing of that; `unknown` why, by section.

    `secrets` are by the paths that were asked for whether they are there, None where the user may not look. `timers`
    are by name whether they are active, None where the machine has no systemd that tells. `notes` are its own of what
    was deployed, the newest last. Bytes and seconds.
    """

    running: Running | None = None
    generation: int | None = None
    kernel: str | None = None
    next_kernel: str | None = None
    uptime: int | None = None
    disks: tuple[Space, ...] = ()
    memory: Space | None = None
    secrets: Mapping[str, bool | None] = field(default_factory=dict)
    timers: Mapping[str, bool] | None = None
    notes: tuple[Note, ...] | None = None
    unknown: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Seen":
        """What `to_json` made. KeyError, TypeError, AttributeError or ValueError on anything else."""
        running = values["running"]
        spaces = tuple(Space(**each) for each in values["disks"])
        return cls(
            running=_running(running) if running else None,
            generation=values["generation"],
            kernel=values["kernel"],
            next_kernel=values["next_kernel"],
            uptime=values["uptime"],
            disks=spaces,
            memory=Space(**values["memory"]) if values["memory"] else None,
            secrets=dict(values["secrets"]),
            timers=None if values["timers"] is None else dict(values["timers"]),
            notes=None if values["notes"] is None else tuple(Note(**each) for each in values["notes"]),
            unknown=dict(values["unknown"]),
        )


def _running(values: Mapping[str, Any]) -> Running:
    known = {each.name: values[each.name] for each in fields(Running)}
    same: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in known.items()}
    return Running(**same)


def ask(machine: Asked, kind: Kind, secrets: Sequence[str] = ()) -> Seen:
    """Ask a machine everything, in one command. FleetError when it does not say."""
    if machine.access is Access.TRIGGER:
        return Seen(unknown={"system": "it can be triggered to pull, and not asked"})
    if machine.access is Access.PUSH_CLOSURE:
        why = "it takes closures, and says no more than what runs on it"
        return Seen(ask_running(machine, kind), unknown={"units": why, "secrets": why} if secrets else {"units": why})
    done = machine.run(script(kind, secrets, machine.become), deadline=ANSWER_DEADLINE)
    if done.status != 0 or not done.stdout.strip():
        raise failure(f"{machine.id}: it did not say what runs on it", done.stderr.strip() or done.stdout)
    if len(done.stdout) > MOST:
        raise FleetError(
            f"{machine.id}: it answered with {len(done.stdout):,} characters, more than {MOST:,}; look at it"
        )
    return parse(kind, done.stdout.splitlines(), secrets)


def script(kind: Kind, secrets: Sequence[str] = (), become: Become = Become.SUDO) -> str:
    """What a machine runs to say it all; nothing has to be installed there for that."""
    is_system = kind is Kind.SYSTEM
    lines = [system_script(become), f"profile={PROFILE} live=/run/current-system"] if is_system else [home_script()]
    if not is_system:
        lines += ['say() { name=$1; shift; printf \'%s=%s\\n\' "$name" "$*"; }', HOME_PROFILE, "live=$profile"]
    lines.append(_part())
    if is_system:
        lines.append(f"look_at_timers {UPGRADE} {PULL}")
    lines += [f"look_at_secret {number} {shlex.quote(path)}" for number, path in enumerate(secrets)]
    return "\n".join([*lines, "true"])


@cache
def _part() -> str:
    return Path(__file__).with_name("machine.sh").read_text(encoding="utf-8")


def parse(kind: Kind, lines: Sequence[str], secrets: Sequence[str] = ()) -> Seen:
    """The answer to `script`, which was asked for these secrets. FleetError when it does not say what runs."""
    running = parse_running(kind, lines)
    values = dict(line.split("=", 1) for line in lines if "=" in line)
    told, timers = below("secret.", values), below("timer.", values)
    words = {"yes": True, "no": False}
    return Seen(
        running=running,
        generation=_number(values.get("generation")),
        kernel=values.get("kernel") or None,
        next_kernel=values.get("next_kernel") or None,
        uptime=_number(values.get("uptime")),
        disks=_disks(below("disk.", values)),
        memory=_memory(values),
        secrets={path: words.get(told.get(str(number), "")) for number, path in enumerate(secrets)},
        timers={
            name: is_active for name in (UPGRADE, PULL) if (is_active := _ACTIVE.get(timers.get(name, ""))) is not None
        }
        or None,
        notes=_notes(below("note.", values)),
    )


def _number(text: str | None, unit: int = 1) -> int | None:
    """A number of the machine's; None for what cannot be one."""
    if text is None or not _NUMBER.fullmatch(text):
        return None
    number = int(text) * unit
    return number if number <= _MOST_BYTES else None


def _disks(places: Mapping[str, str]) -> tuple[Space, ...]:
    """The file systems, each once, by the place where it is mounted."""
    found = []
    for place, text in places.items():
        total, used = (_number(each, _KIB) for each in (*text.split(), "", "")[:2])
        if place.startswith("/") and total and used is not None and used <= total:
            found.append(Space(place, total, used))
    return tuple(found)


def _memory(values: Mapping[str, str]) -> Space | None:
    total, free = (_number(values.get(f"memory.{name}"), _KIB) for name in ("total", "available"))
    return Space("memory", total, total - free) if total and free is not None and free <= total else None


def _notes(lines: Mapping[str, str]) -> tuple[Note, ...] | None:
    """The machine's notes, each once, by their times; what is none is left out. None where none could be read."""
    if not lines:
        return None
    numbered = sorted((number, text) for key, text in lines.items() if (number := _number(key)) is not None)
    notes = dict.fromkeys(note for _, text in numbered if (note := Note.parse(text)))
    return tuple(sorted(notes, key=lambda note: note.when)[-_NOTES:])
