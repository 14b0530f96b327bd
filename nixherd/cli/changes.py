"""What a plan would change, for people: hosts with the same changes are shown once."""

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from nixherd.deploy.report import HostReport, Outcome
from nixherd.fleet.revisions import shown
from nixherd.process import run
from nixherd.sizes import human

# Programs that show what two systems of the store here differ in, and how each is told to use no colours.
_DIFFERS = (("nvd", "--color=never", "diff"), ("dix",))
_DEADLINE = 120.0  # seconds


def changes(hosts: Iterable[HostReport]) -> Iterable[str]:
    """Lines for all of them; by nvd or dix, where there is one and what runs is in the store here too."""
    hosts = list(hosts)
    yield from _revisions(hosts)
    groups: dict[tuple[Any, ...], list[HostReport]] = {}
    for each in hosts:
        if "diff" in each.found and not each.found.get("revision_only"):
            key = (
                *(tuple(each.found.get(name, ())) for name in ("diff", "reboot_for", "inhibited")),
                _services(each),
            )
            groups.setdefault(key, []).append(each)
    for (diff, reboot, inhibited, services), members in groups.items():
        first = members[0].found
        yield f"{', '.join(each.host for each in members)}:"
        yield from (f"  {line}" for line in _by_a_differ(first.get("old"), first.get("new")) or diff)
        yield f"  closure {human(first['size_before'])} → {human(first['size_after'])}"
        yield f"  needs a reboot: {', '.join(reboot) if reboot else 'no'}"
        if inhibited:
            yield f"  cannot be switched to without a boot: {'; '.join(inhibited)}"
        yield from (f"  {line}" for line in services)
        yield ""


def _revisions(hosts: Iterable[HostReport]) -> Iterable[str]:
    """Those that have nothing but another revision to come."""
    groups: dict[tuple[Any, ...], list[str]] = {}
    for each in hosts:
        if each.found.get("revision_only"):
            is_activated = each.outcome is not Outcome.REVISION_ONLY
            key = (each.found.get("old_revision"), each.found.get("revision"), is_activated)
            groups.setdefault(key, []).append(each.host)
    for (old, new, is_activated), members in groups.items():
        yield f"{', '.join(members)}:"
        part = "; it is a part of the system (system.configurationRevision), which is activated for it"
        yield f"  revision only: {shown(old)} → {shown(new)}{part if is_activated else ''}"
        yield ""


def _services(host: HostReport) -> tuple[str, ...]:
    told = host.found.get("services", "services unknown")
    return (told,) if isinstance(told, str) else tuple(told)


def _by_a_differ(old: str | None, new: str | None) -> list[str] | None:
    """None where no such program is there, or it cannot say."""
    if not (old and new and Path(old).exists() and Path(new).exists()):
        return None
    for argv in _DIFFERS:
        if shutil.which(argv[0]):
            done = run([*argv, old, new], env={"NO_COLOR": "1"}, timeout=_DEADLINE, check=False)
            if done.status == 0:
                return [line for line in done.stdout.splitlines() if line.strip()]
    return None
