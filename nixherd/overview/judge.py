"""What of a host differs from what it should be: what was seen is compared with what is wanted. Pure.

What was last seen of a host that does not answer now is shown, and not judged.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from nixherd.base.names import many
from nixherd.base.ssh_keys import parse_public_key
from nixherd.deploy.running import PENDING
from nixherd.fleet.models import Host
from nixherd.fleet.revisions import shown
from nixherd.overview.document import (
    Deployment,
    Difference,
    Guest,
    HostView,
    Key,
    Kind,
    Mend,
    Reach,
    Reboot,
    Revision,
    Secrets,
    State,
    System,
    Units,
)
from nixherd.overview.expected import Expected
from nixherd.overview.machine import Seen
from nixherd.overview.secrets import APPLY, Readers
from nixherd.overview.updates import Means, update_of

BACKUP_AGE = timedelta(days=8)
"""how old the newest backup may be: a week, and a day in which it is made"""
_LISTED = 3  # differences of one kind that are told in one line


@dataclass(frozen=True)
class Told:
    """What was asked of one host. `seen` is what it said: now where `reach.answered`, else when it last did.

    `key` is what it showed now, `TYPE BASE64`. `no_guest` is why nothing, or not all, is known of its guest,
    `no_backups` of that one's backups; `contradictions` are of its history. `behind` is by a revision how many commits
    of the desired one it has not, None where git cannot tell.
    """

    reach: Reach
    seen: Seen | None = None
    key: str | None = None
    guest: Guest | None = None
    no_guest: str | None = None
    no_backups: str | None = None
    readers: Readers = field(default_factory=Readers)
    last: Deployment | None = None
    contradictions: Sequence[str] = ()
    behind: Mapping[str, int | None] = field(default_factory=dict)


def judge(host: Host, expected: Expected, told: Told, now: datetime, backup_age: timedelta = BACKUP_AGE) -> HostView:
    """Compare all that is known of a host with what it is to be."""
    is_current = bool(told.reach.answered)
    view = _view(host, expected, told)
    differences, unknown = list[Difference](), dict[str, str]()
    for part in (_of_key(view), _of_machine(view, told, expected) if is_current else _unseen(told)):
        for each in part:
            _sort(each, differences, unknown)
    for each in (*_of_secrets(view, told), *_of_guest(view, told, now, backup_age), *_of_updates(view)):
        _sort(each, differences, unknown)
    differences += [Difference(Kind.HISTORY, each) for each in told.contradictions]
    shows_other = view.key.same is False
    state = State.UNREACHABLE if told.reach.answered is False and not shows_other else State.SAME
    if state is State.SAME:
        state = State.DIFFERS if differences else State.UNKNOWN if unknown else State.SAME
    return replace(view, state=state, differences=tuple(differences), unknown=unknown)


Verdict = Difference | tuple[str, str]
"""a difference, or a section and why it is not known"""


def _sort(verdict: Verdict, differences: list[Difference], unknown: dict[str, str]) -> None:
    if isinstance(verdict, Difference):
        differences.append(verdict)
    else:
        unknown.setdefault(*verdict)


def _view(host: Host, expected: Expected, told: Told) -> HostView:
    """All sections, unjudged but for what is equal to what."""
    seen, running = told.seen, told.seen.running if told.seen else None
    current = running.current if running else None
    pinned = parse_public_key(host.public_key) if host.public_key else None
    shown_key = parse_public_key(told.key) if told.key else None
    kind = "nixos" if host.is_nixos else "home"
    means = Means(
        host.access,
        pinned is not None,
        expected.updates if host.is_nixos else None,
        seen.timers if seen and told.reach.answered else None,
    )
    missing = tuple(path for path, there in (seen.secrets if seen else {}).items() if there is False)
    return HostView(
        host=host.id,
        hostname=host.hostname,
        kind=kind,
        state=State.UNKNOWN,
        tags=host.tags,
        reach=told.reach,
        key=Key(
            pinned.fingerprint if pinned else None,
            shown_key.fingerprint if shown_key else None,
            pinned.bare == shown_key.bare if pinned and shown_key else None,
        ),
        revision=Revision(
            expected.revision,
            running.revision if running else None,
            told.behind.get(running.revision or "") if running else None,
        ),
        system=System(
            expected.system,
            expected.source,
            current,
            running.profile if running else None,
            running.booted if running else None,
            current == expected.system if current and expected.system else None,
            seen.generation if seen else None,
            running.hostname if running else None,
        ),
        reboot=Reboot(
            bool(running.reboot_for) if running else None,
            running.reboot_for if running else (),
            seen.kernel if seen else None,
            seen.next_kernel if seen else None,
            seen.uptime if seen else None,
        ),
        units=Units(running.failed if running else None),
        secrets=Secrets(
            _right(told.readers),
            _decrypted(expected, seen),
            None if expected.secrets is None else len(expected.secrets),
            missing,
            told.readers.rules,
        ),
        guest=told.guest,
        disks=seen.disks if seen else (),
        memory=seen.memory if seen else None,
        update=update_of(means),
        deployment=told.last,
    )


def _right(readers: Readers) -> bool | None:
    if readers.wrong:
        return False
    return None if readers.unknown else True


def _decrypted(expected: Expected, seen: Seen | None) -> bool | None:
    """Whether all declared secrets are there; None where that is not known of each, or of which there are."""
    if expected.secrets == ():
        return True
    if expected.secrets is None or seen is None:
        return None
    states = [seen.secrets.get(path) for path in expected.secrets]
    if False in states:
        return False
    return None if None in states else True


# What is judged, section by section


def _of_key(view: HostView) -> Iterator[Verdict]:
    trust = ("nixherd", "trust", view.host)
    if view.key.pinned is None:
        yield Difference(Kind.KEY, "no host key is pinned, so it is not connected to", None, trust)
    elif view.key.same is False:
        what = f"it shows the host key {view.key.shown}, and {view.key.pinned} is pinned"
        yield Difference(Kind.KEY, what, None, trust)


def _unseen(told: Told) -> Iterator[Verdict]:
    why = told.reach.why or "it was not asked"
    for section in ("system", "reboot", "units"):
        yield section, why


def _of_machine(view: HostView, told: Told, expected: Expected) -> Iterator[Verdict]:
    seen = told.seen
    if seen is None or seen.running is None:
        why = (seen.unknown.get("system") if seen else None) or "it did not say what runs on it"
        yield from ((section, why) for section in ("system", "reboot", "units"))
        return
    yield from seen.unknown.items()
    yield from _of_system(view, expected)
    running, host = seen.running, view.host
    generation = view.system.running != view.system.profile and view.system.profile is not None
    if generation and PENDING not in view.reboot.why:
        what = f"runs {view.system.running} for a test, and boots {view.system.profile}"
        yield Difference(Kind.GENERATION, what, Mend.DEPLOY, ("nixherd", "deploy", host))
    if view.reboot.why:
        parts = ["what was deployed for the next boot" if each == PENDING else each for each in view.reboot.why]
        yield Difference(
            Kind.REBOOT, f"waits for a reboot: {', '.join(parts)}", Mend.REBOOT, ("nixherd", "reboot", host)
        )
    if view.units.failed:
        what = f"{many(len(view.units.failed), 'unit')} failed: {_some(view.units.failed)}"
        look = ("nixherd", "exec", host, "--", "systemctl", "--failed")
        yield Difference(Kind.UNITS, what, None, look)
    if view.kind == "nixos" and _short(running.hostname) != _short(view.hostname or running.hostname):
        what = f"it calls itself {running.hostname}, and is {view.hostname}"
        yield Difference(Kind.HOSTNAME, what, Mend.DEPLOY, ("nixherd", "deploy", host))


def _some(names: Sequence[str]) -> str:
    """The first few of them."""
    return ", ".join([*names[:_LISTED], *(["…"] if len(names) > _LISTED else [])])


def _short(hostname: str) -> str:
    return hostname.partition(".")[0].lower()


def _of_system(view: HostView, expected: Expected) -> Iterator[Verdict]:
    deploy = ("nixherd", "deploy", view.host)
    if view.system.running is None:
        yield Difference(Kind.SYSTEM, "nothing was activated there yet", Mend.DEPLOY, deploy)
        return
    if expected.system is None:
        yield "system", expected.why or "what it is to run is not known"
    elif not view.system.same:
        what = f"runs {view.system.running} ({_of(view.revision)}), and is to run {expected.system}"
        yield Difference(Kind.SYSTEM, what, Mend.DEPLOY, deploy)
    running = view.revision.running
    if running is not None and running.endswith("-dirty"):
        what = f"what it runs is of {shown(running)}: of files that were not committed"
        yield Difference(Kind.DIRTY, what, Mend.DEPLOY, deploy)
    elif view.system.same and running is None and view.revision.desired is not None:
        what = "runs what it should, and no revision is noted there"
        yield Difference(Kind.REVISION, what, Mend.DEPLOY, deploy)
    elif view.system.same and view.revision.behind is None and running != view.revision.desired:
        what = f"runs what it should, noted as of {shown(running)}, which is not in the history of these files"
        yield Difference(Kind.REVISION, what, Mend.DEPLOY, deploy)


def _of(revision: Revision) -> str:
    behind = "" if revision.behind is None else f", {many(revision.behind, 'commit')} behind"
    return f"{shown(revision.running) if revision.running else 'of an unknown revision'}{behind}"


def _of_secrets(view: HostView, told: Told) -> Iterator[Verdict]:
    for what, mend in told.readers.wrong:
        yield Difference(Kind.RECIPIENTS, what, mend, APPLY if mend else None)
    if view.secrets.recipients is None:
        yield "recipients", told.readers.unknown or "its files were not looked at"
    if not told.reach.answered:
        return
    if view.secrets.decrypted is False:
        what = f"declared, and not there: {_some(view.secrets.missing)}"
        yield Difference(Kind.SECRETS, what, Mend.DEPLOY, ("nixherd", "deploy", view.host))
    elif view.secrets.decrypted is None:
        may_not = [path for path, there in (told.seen.secrets if told.seen else {}).items() if there is None]
        why = f"{may_not[0]} may not be looked at there" if may_not else "which secrets it declares is not known"
        yield "secrets", why


def _of_guest(view: HostView, told: Told, now: datetime, backup_age: timedelta) -> Iterator[Verdict]:
    guest = view.guest
    if guest is None:
        if told.no_guest:
            yield "guest", told.no_guest
        return
    if told.no_guest or guest.drift is None:
        yield "guest", told.no_guest or "how it differs from its definition is not known"
    if told.no_backups:
        yield "backups", told.no_backups
    if guest.drift:
        mends: dict[str, tuple[Mend, tuple[str, ...]]] = {}
        mends["apply"] = (Mend.APPLY, ("nixherd", "vm", "apply", guest.name))
        mends["adopt"] = (Mend.ADOPT, ("nixherd", "vm", "adopt", guest.name, str(guest.vmid)))
        yield Difference(Kind.GUEST, "; ".join(guest.drift), *mends.get(guest.remedy or "", (None, None)))
    backup = (Mend.BACKUP, ("nixherd", "vm", "backup", guest.name)) if guest.managed else (None, None)
    if guest.backups == 0:
        yield Difference(Kind.BACKUP, "it has no backup", *backup)
    elif guest.newest_backup and (age := now - parsed(guest.newest_backup)) > backup_age:
        yield Difference(Kind.BACKUP, f"its newest backup is {age.days} days old", *backup)


def _of_updates(view: HostView) -> Iterator[Verdict]:
    if view.update.hole:
        yield Difference(Kind.UPDATE, view.update.hole)


def parsed(time: str) -> datetime:
    """A time of the document."""
    return datetime.fromisoformat(time)


def written(time: datetime) -> str:
    """As the document has it, in whole seconds."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
