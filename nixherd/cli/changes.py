"""What a plan would change, for people: hosts with the same changes are shown once."""

import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
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
    """Give lines for all of them; by nvd or dix, where there is one and what runs is in the store here too."""
    hosts = list(hosts)
    yield from _revisions(hosts)
    groups: dict[tuple[Any, ...], list[HostReport]] = {}
    for host in hosts:
        if "diff" in host.found and not host.found.get("revision_only"):
            groups.setdefault(_change(host), []).append(host)
    for members in groups.values():
        yield f"{', '.join(member.host for member in members)}:"
        yield from (f"  {line}" for line in _group(members))
        yield ""


_PARTS = ("diff", "reboot_for", "inhibited")
# The hostname is in the system's name (nixpkgs' nixos/modules/system/activation/top-level.nix), before a version.
_SYSTEM = re.compile(r"^/nix/store/[^-/]+-nixos-system-(?P<hostname>.+?)-[^a-zA-Z]")
_SIZE = re.compile(r", [+-][\d.,]+ [A-Za-z]+$")
_OWN = "HOST"


def _change(host: HostReport) -> tuple[Any, ...]:
    """What changes, without the host's own name, and without sizes: hosts with the same change have the same."""
    parts = [tuple(_SIZE.sub("", line) for line in _without_name(host, host.found.get(name, ()))) for name in _PARTS]
    return (*parts, tuple(_without_name(host, _services(host))))


def _without_name(host: HostReport, lines: Iterable[str]) -> Iterator[str]:
    systems = (_SYSTEM.match(str(host.found.get(name))) for name in ("old", "new"))
    names = {host.host, *(system["hostname"] for system in systems if system)}
    name = re.compile(
        rf"(?<![0-9A-Za-z])(?:{'|'.join(map(re.escape, sorted(names, key=len, reverse=True)))})(?![0-9A-Za-z])"
    )
    return (name.sub(_OWN, line) for line in lines)


def _group(members: Sequence[HostReport]) -> Iterator[str]:
    """The change of hosts that have the same; sizes are left out of a line where they differ."""
    first, *others = members
    diff = _by_a_differ(first.found.get("old"), first.found.get("new"))
    if others and diff:
        diff = [line for line in _without_name(first, diff) if not line.startswith(("<<<", ">>>"))]
    elif others:
        lines = zip(*(_without_name(member, member.found["diff"]) for member in members), strict=True)
        diff = [each[0] if len(set(each)) == 1 else _SIZE.sub("", each[0]) for each in lines]
    yield from diff or first.found["diff"]
    before, after = ({human(member.found[name]) for member in members} for name in ("size_before", "size_after"))
    if len(before) == len(after) == 1:
        yield f"closure {min(before)} → {min(after)}"
    reboot, inhibited = (first.found.get(name, ()) for name in _PARTS[1:])
    yield f"needs a reboot: {', '.join(reboot) if reboot else 'no'}"
    if inhibited:
        yield f"cannot be switched to without a boot: {'; '.join(inhibited)}"
    yield from _without_name(first, _services(first)) if others else _services(first)


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
