"""What people read of a run: what a plan would change, and what became of the hosts."""

import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from nixherd.base.names import human
from nixherd.base.process import run
from nixherd.cli.colours import Line
from nixherd.deploy.options import Goal
from nixherd.deploy.report import HostReport, Outcome, Report
from nixherd.fleet.revisions import shown


def lines(result: Report, *, dry: bool, number: int | None) -> Iterator[str | Line]:
    """Say what became of a run's hosts, those with the same cause in one line, and how many came to what."""
    if dry or result.settings.get("goal") == Goal.DRY_ACTIVATE:
        yield from changes(result.hosts)
    clusters = _clustered(result.hosts)
    width = max((len(members[0].host) for members in clusters if len(members) == 1), default=0)
    for members in clusters:
        first = members[0]
        if len(members) > 1:
            yield Line(f"{len(members)} hosts ", first.outcome, f": {cause_of(first)}")
            yield f"    {', '.join(each.host for each in members)}"
            continue
        yield _line_of(first, width, dry=dry)
        if first.outcome is Outcome.ROLLED_BACK:
            yield from (f"{'':{width}}  | {line}" for line in first.found.get("log", ())[-8:])
    if result.settings.get("dirty"):
        yield f"from files that are not committed: {', '.join(result.settings['dirty'])}"
    yield f"{result.summary}{f' (report {number})' if number else ''}"


def _line_of(host: HostReport, width: int, *, dry: bool) -> Line:
    seconds = f" ({host.seconds:.1f} s)" if host.seconds and not dry else ""
    reboot = host.found.get("reboot_for") if host.outcome in (Outcome.DEPLOYED, Outcome.PENDING_REBOOT) else None
    notes = f"; needs a reboot for {', '.join(reboot)}" if reboot else ""
    notes += f"; revision not noted: {host.found['unnoted']}" if host.found.get("unnoted") else ""
    notes += f"; {host.found['moved_files']}" if host.found.get("moved_files") else ""
    return Line(f"{host.host:{width}}  ", host.outcome, f"{seconds}{f': {host.why}' if host.why else ''}{notes}")


def _clustered(hosts: Iterable[HostReport]) -> list[list[HostReport]]:
    """Put the hosts together that ended alike for the same cause, ordered by outcome and name."""
    groups: dict[tuple[Any, ...], list[HostReport]] = {}
    for each in sorted(hosts, key=lambda each: (list(Outcome).index(each.outcome), each.host)):
        alone = (
            each.why is None
            or each.outcome is Outcome.ROLLED_BACK
            or each.found.get("unnoted")
            or each.found.get("moved_files")
        )
        groups.setdefault((each.host,) if alone else (each.outcome, cause_of(each)), []).append(each)
    return list(groups.values())


_ADDRESS = re.compile(r"(?<![\w.:])(?:\d{1,3}(?:\.\d{1,3}){3}|[0-9a-fA-F]{0,4}(?::[0-9a-fA-F]{0,4}){2,7})(?![\w:])")
_SECONDS = re.compile(r"\b\d+(?:\.\d+)? s\b")


def cause_of(host: HostReport) -> str:
    """Why a host ended as it did, without what is its alone: its name, an address, how long it took."""
    why = " ".join(_without_name(host, [host.why or ""]))
    return _SECONDS.sub("… s", _ADDRESS.sub("ADDRESS", why))


# Programs that show how two systems of the store here differ, and how each is told to use no colours.
_DIFFERS = (("nvd", "--color=never", "diff"), ("dix",))
_DEADLINE = 120.0  # seconds


def changes(hosts: Iterable[HostReport]) -> Iterable[str]:
    """Describe what a plan would change, hosts with the same change once; by nvd or dix, where they can compare."""
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
_ANY = "HOST"  # instead of a host's name


def _change(host: HostReport) -> tuple[Any, ...]:
    """Give a host's change without its name and without sizes, so that equal changes compare equal."""
    parts = [tuple(_SIZE.sub("", line) for line in _without_name(host, host.found.get(name, ()))) for name in _PARTS]
    return (*parts, tuple(_without_name(host, _services(host))))


def _without_name(host: HostReport, lines: Iterable[str]) -> Iterator[str]:
    systems = (_SYSTEM.match(str(host.found.get(name))) for name in ("old", "new"))
    names = {host.host, *(system["hostname"] for system in systems if system)}
    either = "|".join(map(re.escape, sorted(names, key=len, reverse=True)))
    name = re.compile(rf"(?<![0-9A-Za-z])(?:{either})(?![0-9A-Za-z])")
    return (name.sub(_ANY, line) for line in lines)


def _group(members: Sequence[HostReport]) -> Iterator[str]:
    """Describe the change that hosts have in common; sizes are left out of a line where they differ."""
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
    """Describe the hosts of which only the revision would change."""
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
    services = host.found.get("services", "services unknown")
    return (services,) if isinstance(services, str) else tuple(services)


def _by_a_differ(old: str | None, new: str | None) -> list[str] | None:
    """Run nvd or dix; None where neither is installed, it fails, or a system is not in the store here."""
    if not (old and new and Path(old).exists() and Path(new).exists()):
        return None
    for argv in _DIFFERS:
        if shutil.which(argv[0]):
            done = run([*argv, old, new], env={"NO_COLOR": "1"}, timeout=_DEADLINE, check=False)
            if done.status == 0:
                return [line for line in done.stdout.splitlines() if line.strip()]
    return None
