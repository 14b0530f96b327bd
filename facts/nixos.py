"""Facts of machines that run NixOS."""

import json
from typing import Any, TypedDict

from pyinfra.api.exceptions import FactProcessError
from typing_extensions import override

from facts.base import Fact
from facts.generations import ProfileGenerations
from nixherd.deploy import protocol as activation
from nixherd.fleet.revisions import of_running
from nixherd.nix.commands import revision_of

FAILED = "systemctl list-units --state=failed,auto-restart --plain --no-legend --full"
PROFILE = "/nix/var/nix/profiles/system"
# Of which revision what runs is: what the machine notes of that very path, and what the system says itself.
REVISION = f"""
{activation.part("revisions.sh")}
noted_of "$(readlink -f /run/current-system)"
echo "noted=$noted"
echo "version=$(nixos-version --json 2>/dev/null)"
"""
# What takes effect with a boot alone.
BOOTED_PARTS = ("kernel", "initrd", "kernel-modules", "systemd")


class System(TypedDict):
    """`booted` differs from `path` when the machine has switched since it booted; an unknown `revision` is None."""

    path: str
    booted: str | None
    hostname: str
    revision: str | None


class CurrentSystem(Fact[System | None]):
    """
    Returns what runs on a NixOS machine, None elsewhere:

    .. code:: python

        {"path": "/nix/store/…-nixos-system-dev-25.11", "booted": "/nix/store/…", "hostname": "dev",
         "revision": "4f2c…"}
    """

    @override
    def command(self) -> str:
        return f"""[ -e /run/current-system ] || exit 0
echo "path=$(readlink -e /run/current-system)"
echo "booted=$(readlink -e /run/booted-system)"
echo "hostname=$(cat /proc/sys/kernel/hostname)"
kind=system{REVISION}"""

    @override
    def process(self, output: list[str]) -> System:
        values = _values(output, "path", "hostname")
        return System(
            path=values["path"],
            booted=values.get("booted") or None,
            hostname=values["hostname"],
            revision=_revision(values, values["path"]),
        )


class SystemState(TypedDict):
    """What a deployment has to know of a machine; None where there is no such thing."""

    current: str
    booted: str | None
    profile: str | None
    """where the system profile leads, which is what the next boot brings"""
    hostname: str
    revision: str | None
    """the fleet's that `current` is of, by the machine's note of that path, else by the system's own word"""
    configuration_revision: str | None
    """system.configurationRevision of `current`, which is a part of it, where it says that"""
    boot_id: str
    failed: list[str]
    """units that have failed"""
    aside: list[str]
    """those of them that an unprivileged user or a clock can make fail"""
    unwell: list[str]
    """those of the others whose failure the last deployment that was kept had not noted"""
    at_work: list[str]
    """units that activate a system, or watch over it; `switch-to-configuration` where it runs as none of them"""
    init: str | None
    """the interface of its init; another one needs a boot"""
    inhibitors: str | None
    """what its switch-inhibitors say, as JSON"""
    parts: dict[str, str]
    """of the booted system: what takes effect with a boot alone, by name"""
    reboot_for: list[str]
    """those of them that the next boot brings anew"""
    sudo: str
    """how root's work is done: `root` by itself, `free` by sudo without a password, `asks` with one"""


class Running(Fact[SystemState | None]):
    """
    Returns a SystemState in one round trip, None where no NixOS runs:

    .. code:: python

        {"current": "/nix/store/…", "booted": "/nix/store/…", "profile": "/nix/store/…", "hostname": "dev",
         "revision": "4f2c…", "configuration_revision": None, "boot_id": "0ea6…", "failed": [], "aside": [],
         "unwell": [], "at_work": [],
         "init": "systemd 1", "inhibitors": "{}", "parts": {"kernel": "/nix/store/…/bzImage", …},
         "reboot_for": ["initrd", "kernel"], "sudo": "free"}
    """

    @override
    def command(self) -> str:
        # as few processes as can be: a fleet has many machines, and small ones
        booted, parts = "/run/booted-system", " ".join(BOOTED_PARTS)
        return f"""
[ -e /run/current-system ] || exit 0
kind=system
{activation.part("units.sh")}
say() {{ name=$1; shift; printf '%s=%s\\n' "$name" "$*"; }}
names= paths=
add() {{ [ ! -e "$2" ] || {{ names="$names $1"; paths="$paths $2"; }}; }}
add current /run/current-system; add booted {booted}; add profile {PROFILE}
for part in {parts}; do add "part.$part" "{booted}/$part"; add "next.$part" "{PROFILE}/$part"; done
readlink -f $paths | for name in $names; do read -r path; say "$name" "$path"; done
for file in hostname random/boot_id; do read -r line <"/proc/sys/kernel/$file"; say "${{file#*/}}" "$line"; done
{REVISION}
say init "$(cat /run/current-system/init-interface-version 2>/dev/null)"
say inhibitors "$(cat /run/current-system/switch-inhibitors 2>/dev/null | tr '\\n' ' ')"
look_at_units
say failed $failing
if [ -n "$failing" ]; then
say aside $(echo "$failing" | that_do_not)
say unwell $(echo "$failing" | unseen | that_count)
fi
say at_work $at_work $([ -n "$at_work" ] || switching)
if [ "$(id -u)" = 0 ]; then say sudo root; elif sudo -n true 2>/dev/null; then say sudo free; else say sudo asks; fi
"""

    @override
    def process(self, output: list[str]) -> SystemState:
        values = _values(output, "current", "hostname", "boot_id", "sudo")
        return SystemState(
            current=values["current"],
            booted=values.get("booted") or None,
            profile=values.get("profile") or None,
            hostname=values["hostname"],
            revision=_revision(values, values["current"]),
            configuration_revision=revision_of(values.get("version", "")),
            boot_id=values["boot_id"],
            failed=_units(values, "failed"),
            aside=_units(values, "aside"),
            unwell=_units(values, "unwell"),
            at_work=_units(values, "at_work"),
            init=values.get("init") or None,
            inhibitors=values.get("inhibitors") or None,
            parts={part: values[f"part.{part}"] for part in BOOTED_PARTS if values.get(f"part.{part}")},
            reboot_for=[part for part in sorted(BOOTED_PARTS) if _differ(values, part)],
            sudo=values["sudo"],
        )


class BootedSystem(Fact[str | None]):
    """Returns the store path of the system that the machine booted, None where no NixOS runs."""

    @override
    def command(self) -> str:
        return "readlink -e /run/booted-system || true"

    @override
    def process(self, output: list[str]) -> str:
        return output[0]


class Revision(Fact[str | None]):
    """Returns the revision of the fleet that the running system is of, None where that is not known."""

    @override
    def command(self) -> str:
        return f"""[ -e /run/current-system ] || exit 0
echo "path=$(readlink -e /run/current-system)"
kind=system{REVISION}"""

    @override
    def process(self, output: list[str]) -> str | None:
        values = _values(output, "path")
        return _revision(values, values["path"])


class FailedUnits(Fact[list[str]]):
    """Returns the names of the units that have failed, sorted."""

    @override
    @staticmethod
    def default() -> list[str]:
        return []

    @override
    def command(self) -> str:
        return FAILED

    @override
    def process(self, output: list[str]) -> list[str]:
        return sorted(line.split()[0] for line in output if line.strip())


class NeedsReboot(Fact[list[str] | None]):
    """
    Returns what a boot alone would bring into effect of what the next boot would bring, None where no NixOS runs:

    .. code:: python

        ["initrd", "kernel"]
    """

    @override
    def command(self) -> str:
        parts = " ".join(BOOTED_PARTS)
        return (
            f"[ ! -e /run/booted-system ] || for part in {parts}; do "
            f'echo "$part $(readlink -e "/run/booted-system/$part") $(readlink -e "{PROFILE}/$part")"; done'
        )

    @override
    def process(self, output: list[str]) -> list[str]:
        rows = [line.split() for line in output]
        return sorted(row[0] for row in rows if len(row) == 3 and row[1] != row[2])


class Generations(ProfileGenerations):
    """
    Returns the generations of the system profile, oldest first:

    .. code:: python

        [{"number": 1, "path": "/nix/store/…", "built": "2026-11-28T10:00:00+00:00", "current": True}]
    """

    profile = PROFILE


class LastDeployment(Fact[dict[str, Any] | None]):
    """
    Returns how the last deployment since the boot stands on its machine, None where there was none. Needs root:

    .. code:: python

        {"stage": "kept", "id": "…", "who": "admin@laptop", "why": None, "new": "/nix/store/…", …}
    """

    @override
    def command(self) -> str:
        return activation.last(activation.Kind.SYSTEM)

    @override
    def process(self, output: list[str]) -> dict[str, Any] | None:
        standing = activation.parse("\n".join(output))
        if standing.stage is activation.Stage.NONE:
            return None
        found: dict[str, Any] = json.loads(json.dumps(vars(standing)))
        return found


def _revision(values: dict[str, str], path: str) -> str | None:
    return of_running(path, values.get("noted"), values.get("version", ""))


def _units(values: dict[str, str], name: str) -> list[str]:
    return sorted(values.get(name, "").split())


def _differ(values: dict[str, str], part: str) -> bool:
    """Whether the next boot brings another one than runs; what is on one side alone says nothing."""
    booted, following = values.get(f"part.{part}"), values.get(f"next.{part}")
    return bool(booted and following and booted != following)


def _values(output: list[str], *needed: str) -> dict[str, str]:
    values = dict(line.split("=", 1) for line in output if "=" in line)
    if missing := [name for name in needed if not values.get(name)]:
        raise FactProcessError(f"no {', '.join(missing)} in what the machine says of itself")
    return values
