"""Facts of machines that run NixOS."""

import json
from dataclasses import asdict
from typing import Any

from typing_extensions import override

from nixherd.base.answers import values_of
from nixherd.deploy import protocol as activation
from nixherd.deploy.running import LEADS, PROFILE, REVISION, parse_system, reboot_for, system_script
from nixherd.facts.base import Fact
from nixherd.facts.generations import ProfileGenerations
from nixherd.fleet.revisions import of_running


class CurrentSystem(Fact[dict[str, str | None] | None]):
    """
    Returns what runs on a NixOS machine, None elsewhere. `booted` differs from `path` when the machine has switched
    since it booted; an unknown `revision` is None:

    .. code:: python

        {"path": "/nix/store/…-nixos-system-dev-25.11", "booted": "/nix/store/…", "hostname": "dev",
         "revision": "4f2c…"}
    """

    @override
    def command(self) -> str:
        return f"""[ -e /run/current-system ] || exit 0
current=$(readlink -e /run/current-system)
echo "path=$current"
echo "booted=$(readlink -e /run/booted-system)"
echo "hostname=$(cat /proc/sys/kernel/hostname)"
kind=system
{REVISION}"""

    @override
    def process(self, output: list[str]) -> dict[str, str | None]:
        values = values_of(output, "path", "hostname")
        system = {"path": values["path"], "booted": values.get("booted") or None, "hostname": values["hostname"]}
        return {**system, "revision": _revision(values)}


class Running(Fact[dict[str, Any] | None]):
    """
    Returns what a deployment has to know of a machine, in one round trip, None where no NixOS runs. The fields are
    those of `nixherd.deploy.running.Running`:

    .. code:: python

        {"current": "/nix/store/…", "booted": "/nix/store/…", "profile": "/nix/store/…", "hostname": "dev",
         "revision": "4f2c…", "configuration_revision": None, "boot_id": "0ea6…", "failed": [], "aside": [],
         "unwell": [], "at_work": [],
         "init": "systemd 1", "inhibitors": "{}", "hold": None,
         "parts": {"kernel": "/nix/store/…/bzImage", …},
         "reboot_for": ["initrd", "kernel"], "sudo": "free"}
    """

    @override
    def command(self) -> str:
        return system_script()

    @override
    def process(self, output: list[str]) -> dict[str, Any]:
        values = asdict(parse_system(output)).items()
        return {name: [*each] if isinstance(each, tuple) else each for name, each in values if name != "protocol"}


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
current=$(readlink -e /run/current-system)
echo "path=$current"
kind=system
{REVISION}"""

    @override
    def process(self, output: list[str]) -> str | None:
        return _revision(values_of(output, "path"))


class FailedUnits(Fact[list[str]]):
    """Returns the names of the units that have failed, sorted."""

    default = list

    @override
    def command(self) -> str:
        return "systemctl list-units --state=failed,auto-restart --plain --no-legend --full"

    @override
    def process(self, output: list[str]) -> list[str]:
        return sorted(line.split()[0] for line in output if line.strip())


class NeedsReboot(Fact[list[str] | None]):
    """
    Returns what a boot alone would bring into effect of what the next boot would bring, with `system` where another
    system than the one that runs was left to it (`goal=boot`); None where no NixOS runs:

    .. code:: python

        ["initrd", "kernel", "system"]
    """

    @override
    def command(self) -> str:
        return f"[ -e /run/current-system ] && [ -e /run/booted-system ] || exit 0{LEADS}"

    @override
    def process(self, output: list[str]) -> list[str]:
        return [*reboot_for(values_of(output, "current"))]


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


def _revision(values: dict[str, str]) -> str | None:
    return of_running(values["path"], values.get("noted"), values.get("version", ""))
