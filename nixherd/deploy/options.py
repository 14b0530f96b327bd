"""How a deployment is to go: its goal, its waves, and what `--data`, group data or `nixherd deploy` set."""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from nixherd.base.errors import Usage
from nixherd.base.names import EXTENSION, flag_of

CANARIES = 0
USUAL = 1
_SHARE = re.compile(r"(\d{1,3})\s*%")


HERE, TARGET = "local", "target"  # of build_on, which may name a host as well
LONGEST = 24 * 3600  # seconds


def wave_of(host_id: str, canary: Any, wave: Any) -> int:
    """The wave of a host: canaries go first, who says nothing goes in wave 1. Usage when it is not a number from 1."""
    if canary not in (None, True, False, 0, 1):
        raise Usage(f"{host_id}: canary={canary} is neither true nor false")
    if canary:
        return CANARIES
    if wave is None:
        return USUAL
    if isinstance(wave, bool) or not isinstance(wave, int) or wave < USUAL:
        raise Usage(f"{host_id}: wave={wave} is not a whole number from {USUAL}; canary=true goes first")
    return wave


def wave_label(wave: int) -> str:
    return "canaries" if wave == CANARIES else f"wave {wave}"


@dataclass(frozen=True)
class MaxFail:
    """How many hosts may fail before the rollout stops: a number, or a percentage of all; None where nobody said."""

    number: int | None = None
    percent: int | None = None

    @classmethod
    def of(cls, given: Any) -> "MaxFail":
        """From `2` or `10%`. Usage when it is neither."""
        if given is None:
            return cls()
        if isinstance(given, int) and not isinstance(given, bool) and given >= 0:
            return cls(number=given)
        share = _SHARE.fullmatch(str(given))
        if share and int(share[1]) <= 100:
            return cls(percent=int(share[1]))
        if str(given).isdecimal():
            return cls(number=int(given))
        raise Usage(f"max_fail={given} is neither a number of hosts nor a percentage like 10%")

    def allows(self, failed: int, total: int) -> bool | None:
        """Whether so many failures are no reason to stop; None where nobody said."""
        if self.percent is not None:
            return failed * 100 <= self.percent * total
        return None if self.number is None else failed <= self.number

    def holds(self, wave: int, failed: Mapping[str, int], total: int) -> str | None:
        """Why a host of this wave is not to begin, by the waves of those that `failed`; None when it may.

        A wave begins when those before it are proven; where nobody said how many may fail, that is all of them.
        """
        if not failed:
            return None
        allowed = self.allows(len(failed), total)
        earlier = sorted(host for host, other in failed.items() if other < wave)
        if allowed is False:
            return f"{len(failed)} of {total} hosts failed ({', '.join(sorted(failed))}), more than max_fail allows"
        if allowed is None and earlier:
            return f"{', '.join(earlier)} failed in a wave before {wave_label(wave)}"
        return None


NO_LIMIT = MaxFail()


class Goal(StrEnum):
    """The actions of switch-to-configuration(8); the value is its word."""

    SWITCH = "switch"
    BOOT = "boot"
    TEST = "test"
    DRY_ACTIVATE = "dry-activate"

    @property
    def activates(self) -> bool:
        """Whether the running system becomes another one."""
        return self in (Goal.SWITCH, Goal.TEST)

    @property
    def makes_generation(self) -> bool:
        """Whether profile and boot entry are the new system's in the end."""
        return self in (Goal.SWITCH, Goal.BOOT)


class Engine(StrEnum):
    """Who activates."""

    GUARDED = "guarded"
    NIXOS_REBUILD = "nixos-rebuild"


@dataclass(frozen=True)
class Options:
    """For one host. Seconds: `activation_deadline` for an activation, `confirm_deadline` for the proof after it, `soak`
    of that for watching the new system before it is kept. Hosts of one `role` are not activated at the same time. With
    `reboot` a machine boots into the new system where goal=boot, or where the new one needs it. With `substitute` it
    fetches what it can from its own caches. `build_on` is `local`, `target` or a host of the fleet: who builds.
    `sign_with` is a secret key file for what is copied. `require_signed`: see `nixherd.deploy.commit_policy`. With
    `no_check` a system is switched to whatever it says against that itself (NIXOS_NO_CHECK). A home's files that are in
    the way of its new generation are moved to `FILE.backup_extension`."""

    goal: Goal = Goal.SWITCH
    activation_deadline: int = 600
    confirm_deadline: int = 120
    soak: int = 0
    specialisation: str | None = None
    allow_dirty: bool = False
    wave: int = USUAL
    role: str | None = None
    max_fail: MaxFail = NO_LIMIT
    engine: Engine = Engine.GUARDED
    build_on: str = HERE
    reboot: bool = False
    substitute: bool = True
    sign_with: str | None = None
    require_signed: bool = False
    no_check: bool = False
    backup_extension: str | None = None

    @classmethod
    def of(cls, host_id: str, data: Callable[[str], Any], builders: Collection[str] | None = None) -> "Options":
        """Read them from a host's data, which are None where nothing is said; `builders` are the hosts that may build.

        Usage when one of them cannot be meant.
        """
        usual = cls()
        goal = data("goal") or usual.goal
        if goal not in list(Goal):
            raise Usage(f"goal={goal} is not one of {', '.join(Goal)}")
        seconds = {
            name: _seconds(name, data(name), getattr(usual, name), least)
            for name, least in (("activation_deadline", 1), ("confirm_deadline", 1), ("soak", 0))
        }
        if seconds["soak"] >= seconds["confirm_deadline"]:
            soak, confirm = seconds["soak"], seconds["confirm_deadline"]
            raise Usage(f"soak={soak} leaves no time to confirm: confirm_deadline={confirm} has to be longer")
        specialisation = data("specialisation")
        if specialisation and not Goal(goal).activates:
            raise Usage(f"specialisation={specialisation}: with goal={goal} it is chosen at the boot")
        engine = data("engine") or Engine.GUARDED
        if engine not in list(Engine):
            raise Usage(f"engine={engine} is not one of {', '.join(Engine)}")
        build_on = _text("build_on", data("build_on")) or usual.build_on
        if builders is not None and build_on not in (HERE, TARGET, *builders):
            raise Usage(f"build_on={build_on} is neither {HERE}, {TARGET} nor a host of the fleet")
        texts = {name: _text(name, data(name)) for name in ("specialisation", "role", "sign_with")}
        flags = {name: _flag(name, data(name)) for name in ("allow_dirty", "reboot", "require_signed", "no_check")}
        backup = _text("backup_extension", data("backup_extension"))
        if backup and not re.fullmatch(EXTENSION, backup):
            raise Usage(
                f"backup_extension={backup} is not an extension: letters, digits and _ . + - alone, as in backup"
            )
        as_given: dict[str, Any] = {**seconds, **texts, **flags}
        return cls(
            goal=Goal(goal),
            wave=wave_of(host_id, data("canary"), data("wave")),
            max_fail=MaxFail.of(data("max_fail")),
            backup_extension=backup,
            engine=Engine(engine),
            build_on=build_on,
            substitute=_flag("substitute_on_destination", data("substitute_on_destination"), usual.substitute),
            **as_given,
        )


def _flag(name: str, value: Any, usual: bool = False) -> bool:
    return usual if value is None else flag_of(name, value)


def _text(name: str, value: Any) -> str | None:
    if value is None or value == "":
        return None
    if isinstance(value, (bool, list, dict)) or str(value).startswith("-") or not str(value).isprintable():
        raise Usage(f"{name}={value} is not a name")
    return str(value)


def _seconds(name: str, value: Any, usual: int, least: int) -> int:
    if value is None:
        return usual
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= LONGEST:
        raise Usage(
            f"{name}={value} is not a number of seconds from {least} to {LONGEST}; write one like {usual or 30}"
        )
    return value
