"""In which update mode a host is: pushed, pulled or scheduled; each in exactly one, and a hole is named. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass

from nixherd.fleet.models import Access
from nixherd.overview.document import Mode, Update

UPGRADE, PULL = "nixos-upgrade.timer", "nixherd-pull.timer"
"""the timers by which machines update themselves: of homelab.update and system.autoUpgrade, and of nixherd.pull"""


@dataclass(frozen=True)
class Means:
    """What brings a host its updates. `configured` is what its configuration enables (`Evaluated.updates`), None where
    that is not known, or of a home; `timers` are by name whether they are active there, None where nobody could look.
    `is_pinned`: there is a host key by which it can be deployed to.
    """

    access: Access = Access.SHELL
    is_pinned: bool = True
    configured: Mapping[str, bool] | None = None
    timers: Mapping[str, bool] | None = None


def update_of(means: Means) -> Update:
    """Judge by the configuration where it is known, else by what the machine does now."""
    modes = _configured(means) if means.configured is not None else _seen(means)
    if len(modes) > 1:
        return Update(None, modes, f"it is updated in {len(modes)} ways, which undo each other: {', '.join(modes)}")
    if modes:
        return Update(modes[0], modes, _asleep(modes[0], means))
    if means.access is Access.TRIGGER:
        return Update(None, (), "it can only be triggered to pull, and has nothing to pull from (nixherd.pull.from)")
    if not means.is_pinned:
        return Update(None, (), "nobody updates it: no host key is pinned, so nobody can deploy to it")
    active = [name for name, is_active in (means.timers or {}).items() if is_active]
    if active and means.configured is not None:
        return Update(Mode.PUSHED, (Mode.PUSHED,), f"it is to be pushed to, and still updates itself: {active[0]}")
    return Update(Mode.PUSHED, (Mode.PUSHED,))


def _configured(means: Means) -> tuple[Mode, ...]:
    on = {name for name, value in (means.configured or {}).items() if value}
    modes = [Mode.SCHEDULED] if on & {"updates", "upgrades"} else []
    if "pullsByTimer" in on or ("pulls" in on and means.access is Access.TRIGGER):
        modes.append(Mode.PULLED)
    return tuple(modes)


def _seen(means: Means) -> tuple[Mode, ...]:
    timers = means.timers or {}
    if means.access is Access.TRIGGER and not timers:
        return (Mode.PULLED,)
    return tuple(mode for mode, name in ((Mode.SCHEDULED, UPGRADE), (Mode.PULLED, PULL)) if timers.get(name))


def _asleep(mode: Mode, means: Means) -> str | None:
    """What keeps a machine from doing by itself what it is to do; None where that is not seen."""
    name = UPGRADE if mode is Mode.SCHEDULED else PULL
    if means.access is Access.TRIGGER or means.timers is None or means.timers.get(name, False):
        return None
    return f"it is to update itself, and {name} is not active there"
