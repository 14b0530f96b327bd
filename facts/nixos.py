"""Facts of machines that run NixOS."""

import json
from typing import Any, TypedDict

from pyinfra.api.exceptions import FactProcessError
from typing_extensions import override

from facts.base import Fact
from facts.generations import ProfileGenerations
from nixherd.deploy import protocol as activation
from nixherd.deploy.running import BOOTED_PARTS, PROFILE, REVISION, parse_system, system_script
from nixherd.fleet.revisions import of_running

FAILED = "systemctl list-units --state=failed,auto-restart --plain --no-legend --full"


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
    """What a deployment has to know of a machine; None for what does not exist."""

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
    """those of them that the next boot brings anew, and `system` where another one was left to the next boot"""
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
        return system_script()

    @override
    def process(self, output: list[str]) -> SystemState:
        running = parse_system(output)
        return SystemState(
            current=str(running.current),
            booted=running.booted,
            profile=running.profile,
            hostname=running.hostname,
            revision=running.revision,
            configuration_revision=running.configuration_revision,
            boot_id=running.boot_id,
            failed=[*running.failed],
            aside=[*running.aside],
            unwell=[*running.unwell],
            at_work=[*running.at_work],
            init=running.init,
            inhibitors=running.inhibitors,
            parts={**running.parts},
            reboot_for=[*running.reboot_for],
            sudo=running.sudo,
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


def _values(output: list[str], *needed: str) -> dict[str, str]:
    values = dict(line.split("=", 1) for line in output if "=" in line)
    if missing := [name for name in needed if not values.get(name)]:
        raise FactProcessError(f"no {', '.join(missing)} in what the machine says of itself")
    return values
