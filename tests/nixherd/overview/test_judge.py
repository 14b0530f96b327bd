"""What of a host differs from what it should be; what is not known is said, and never taken for well."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from nixherd.base.ssh_keys import generate_ed25519
from nixherd.deploy.running import PENDING, Running
from nixherd.fleet.models import Host
from nixherd.overview.document import Guest, HostView, Kind, Mend, Mode, Reach, State
from nixherd.overview.expected import Expected
from nixherd.overview.judge import Told, judge
from nixherd.overview.machine import Seen
from nixherd.overview.secrets import Readers
from nixherd.overview.updates import PULL, UPGRADE

NOW = datetime(2026, 12, 1, 4, tzinfo=UTC)
OURS, OTHER = generate_ed25519("web01").public, generate_ed25519("other").public
SYSTEM, OLD = (f"/nix/store/{letter * 32}-nixos-system-web01-26.05" for letter in "ab")
COMMIT, EARLIER = "1" * 40, "2" * 40
HOST = Host("web01", "web01", None, "alice", "/home/alice", OURS, (), "hosts/web01", None, tags=("web",))
SECRET = "/run/secrets/token"


def running(**changes: Any) -> Running:
    values: dict[str, Any] = {
        "current": SYSTEM,
        "profile": SYSTEM,
        "booted": SYSTEM,
        "hostname": "web01",
        "boot_id": "b",
    }
    return Running(**(values | {"revision": COMMIT} | changes))


def told(*, key: str | None = OURS, reach: Reach | None = None, seen: Seen | None = None, **changes: Any) -> Told:
    usual = Seen(running(), secrets={SECRET: True}, timers={UPGRADE: False, PULL: False})
    return Told(reach or Reach(True, "10.0.0.1"), seen or usual, key, behind={COMMIT: 0, EARLIER: 3}, **changes)


def judged(host: Host = HOST, expected: Expected | None = None, **changes: Any) -> HostView:
    plan = expected or Expected(SYSTEM, COMMIT, "evaluated", secrets=(SECRET,), files=(), updates={"pulls": False})
    return judge(host, plan, told(**changes), NOW)


def seen(found: Running | None = None, **changes: Any) -> Seen:
    usual = {"secrets": {SECRET: True}, "timers": {UPGRADE: False, PULL: False}}
    return Seen(found or running(), **{**usual, **changes})


def test_a_host_that_is_as_it_should_be() -> None:
    view = judged()
    assert (view.state, view.differences, view.unknown) == (State.SAME, (), {})
    assert (view.revision.behind, view.system.same, view.key.same, view.update.mode) == (0, True, True, Mode.PUSHED)
    assert (view.secrets.recipients, view.secrets.decrypted) == (True, True)


GUEST = Guest(101, "web01", drift=(), backups=2, newest_backup="2026-11-30T00:00:00Z")


@pytest.mark.parametrize(
    ("changes", "kind", "mend", "word"),
    [
        (
            {"seen": seen(running(current=OLD, profile=OLD, revision=EARLIER))},
            Kind.SYSTEM,
            Mend.DEPLOY,
            "3 commits behind",
        ),
        ({"seen": seen(running(current=None, profile=None))}, Kind.SYSTEM, Mend.DEPLOY, "nothing was activated"),
        ({"seen": seen(running(revision=None))}, Kind.REVISION, Mend.DEPLOY, "no revision is noted"),
        ({"seen": seen(running(revision="3" * 40))}, Kind.REVISION, Mend.DEPLOY, "not in the history"),
        ({"seen": seen(running(revision=f"{COMMIT}-dirty"))}, Kind.DIRTY, Mend.DEPLOY, "not committed"),
        ({"seen": seen(running(profile=OLD))}, Kind.GENERATION, Mend.DEPLOY, "for a test"),
        ({"seen": seen(running(profile=OLD, reboot_for=(PENDING,)))}, Kind.REBOOT, Mend.REBOOT, "next boot"),
        ({"seen": seen(running(reboot_for=("kernel",)))}, Kind.REBOOT, Mend.REBOOT, "kernel"),
        ({"seen": seen(running(failed=("a.service", "b.service")))}, Kind.UNITS, None, "2 units failed"),
        ({"seen": seen(running(failed=("a.service",), aside=("a.service",)))}, Kind.UNITS, None, "1 unit failed"),
        ({"seen": seen(running(hostname="web02"))}, Kind.HOSTNAME, Mend.DEPLOY, "web02"),
        ({"seen": seen(secrets={SECRET: False})}, Kind.SECRETS, Mend.DEPLOY, SECRET),
        ({"readers": Readers((("secrets/a.yaml: +web01", Mend.REKEY),))}, Kind.RECIPIENTS, Mend.REKEY, "+web01"),
        ({"guest": replace(GUEST, drift=("cores 2 → 4",), remedy="apply")}, Kind.GUEST, Mend.APPLY, "cores"),
        ({"guest": replace(GUEST, drift=("not marked",), remedy="adopt")}, Kind.GUEST, Mend.ADOPT, "marked"),
        ({"guest": replace(GUEST, drift=("gone",), remedy="by hand")}, Kind.GUEST, None, "gone"),
        ({"guest": replace(GUEST, backups=0, newest_backup=None)}, Kind.BACKUP, Mend.BACKUP, "no backup"),
        ({"guest": replace(GUEST, newest_backup="2026-11-20T00:00:00Z")}, Kind.BACKUP, Mend.BACKUP, "11 days"),
        ({"guest": replace(GUEST, backups=0, managed=False)}, Kind.BACKUP, None, "no backup"),
        ({"seen": seen(timers={UPGRADE: True, PULL: False})}, Kind.UPDATE, None, "updates itself"),
        ({"contradictions": ("run 4 says another path",)}, Kind.HISTORY, None, "run 4"),
    ],
)
def test_each_difference_and_what_mends_it(changes: dict[str, Any], kind: Kind, mend: Mend | None, word: str) -> None:
    view = judged(**changes)
    assert view.state is State.DIFFERS
    [difference] = view.differences
    assert (difference.kind, difference.mend) == (kind, mend)
    assert word in difference.what
    assert (difference.command is not None) or mend is None


def test_an_older_commit_of_the_same_system_is_no_difference() -> None:
    view = judged(seen=seen(running(revision=EARLIER)))
    assert (view.state, view.revision.behind) == (State.SAME, 3)


@pytest.mark.parametrize(
    ("changes", "section"),
    [
        ({"seen": Seen(None, unknown={"system": "it can be triggered, not asked"})}, "system"),
        ({"seen": seen(secrets={SECRET: None})}, "secrets"),
        ({"seen": seen(unknown={"units": "systemctl did not say"})}, "units"),
        ({"readers": Readers(unknown="its rule is not understood")}, "recipients"),
        ({"guest": replace(GUEST, drift=None), "no_guest": "token lacks VM.Audit"}, "guest"),
        ({"no_guest": "token lacks VM.Audit"}, "guest"),
        ({"expected": Expected(why="it was not evaluated")}, "system"),
    ],
)
def test_what_is_not_known_is_unknown_and_never_well(changes: dict[str, Any], section: str) -> None:
    view = judged(**changes)
    assert section in view.unknown
    assert view.unknown[section]
    assert view.state is State.UNKNOWN


def test_a_host_that_does_not_answer_is_shown_as_it_was_last_known_and_not_judged_by_it() -> None:
    reach = Reach(False, "10.0.0.1", "no route", "2026-11-30T04:00:00Z", 86400, "2026-11-30T05:00:00Z")
    view = judged(reach=reach, key=None, seen=seen(running(current=OLD, failed=("a.service",))))
    assert (view.state, view.differences) == (State.UNREACHABLE, ())
    assert (view.system.running, view.units.failed, view.reach.age) == (OLD, ("a.service",), 86400)
    assert view.key.same is None
    assert view.unknown["system"] == "no route"


def test_what_is_known_of_an_unreachable_host_from_elsewhere_is_judged() -> None:
    old = replace(GUEST, newest_backup="2026-01-01T00:00:00Z")
    view = judged(reach=Reach(False, why="no route"), key=None, guest=old)
    assert (view.state, [each.kind for each in view.differences]) == (State.UNREACHABLE, [Kind.BACKUP])


def test_another_key_is_a_difference_although_nothing_else_could_be_asked() -> None:
    view = judged(reach=Reach(False, "10.0.0.1", "it shows another host key"), key=OTHER)
    assert (view.state, [each.kind for each in view.differences]) == (State.DIFFERS, [Kind.KEY])
    assert view.key.shown
    assert view.key.shown in view.differences[0].what
    assert view.differences[0].command == ("nixherd", "trust", "web01")


def test_a_host_without_a_pinned_key_is_in_no_update_mode() -> None:
    view = judged(replace(HOST, public_key=None), reach=Reach(False, why="no key is pinned"), key=None)
    assert [each.kind for each in view.differences] == [Kind.KEY, Kind.UPDATE]


def test_a_backup_may_be_as_old_as_is_said() -> None:
    guest = replace(GUEST, newest_backup="2026-11-20T00:00:00Z")
    view = judge(HOST, Expected(SYSTEM, COMMIT, secrets=()), told(guest=guest), NOW, timedelta(days=30))
    assert Kind.BACKUP not in {each.kind for each in view.differences}
