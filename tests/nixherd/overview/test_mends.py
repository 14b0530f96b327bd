"""Differences as work: one row for a host and a mend, in an order that is right, and what is left by what was seen."""

from typing import Any

import pytest

from nixherd.overview.document import Difference, Guest, HostView, Hypervisor, Kind, Mend, Overview, Reach, State
from nixherd.overview.mends import ORDER, ByHand, Left, NotJudged, Work, Wrong, blocked, left, plan_of, unjudged

DEPLOY = ("nixherd", "deploy", "web01")
SYSTEM = Difference(Kind.SYSTEM, "runs a, and is to run b", Mend.DEPLOY, DEPLOY)
DIRTY = Difference(Kind.DIRTY, "of files that were not committed", Mend.DEPLOY, DEPLOY)
REBOOT = Difference(Kind.REBOOT, "waits for a reboot", Mend.REBOOT)
RECIPIENTS = Difference(Kind.RECIPIENTS, "a.yaml: without it", Mend.REKEY)
GUEST = Difference(Kind.GUEST, "memory: 1 -> 2", Mend.APPLY)
UNITS = Difference(Kind.UNITS, "1 unit failed", None, ("nixherd", "exec", "web01"))
HERE = Reach(True, "192.0.2.1")


def view(name: str, *differences: Difference, reach: Reach = HERE, **more: Any) -> HostView:
    return HostView(name, name, "nixos", State.SAME, reach=reach, differences=differences, **more)


def document(*hosts: HostView, **more: Any) -> dict[str, Any]:
    return Overview("/fleet", "2026-01-31T12:00:00Z", None, hosts, **more).to_json()


def test_a_row_for_each_host_and_mend_in_the_right_order() -> None:
    hosts = (view("web01", REBOOT, SYSTEM, UNITS, DIRTY, RECIPIENTS, GUEST), view("web02", REBOOT))
    plan = plan_of(document(*hosts, differences=(RECIPIENTS,)))
    assert [(work.host, work.mend) for work in plan.mends] == [
        (None, Mend.REKEY),
        ("web01", Mend.REKEY),
        ("web01", Mend.APPLY),
        ("web01", Mend.DEPLOY),
        ("web01", Mend.REBOOT),
        ("web02", Mend.REBOOT),
    ]
    [deploy] = [work for work in plan.mends if work.mend is Mend.DEPLOY]
    assert deploy == Work("web01", Mend.DEPLOY, (Wrong("system", SYSTEM.what), Wrong("dirty", DIRTY.what)), DEPLOY)
    assert plan.by_hand == (ByHand("web01", "units", UNITS.what, UNITS.command),)
    assert plan.not_judged == ()


def test_the_order_has_each_mend_behind_those_that_it_needs() -> None:
    assert sorted(ORDER) == sorted(Mend)
    for before, after in (("re-key", "deploy"), ("deploy", "reboot"), ("apply", "reboot"), ("adopt", "apply")):
        assert ORDER.index(Mend(before)) < ORDER.index(Mend(after))
        assert blocked(Work("a", Mend(after), ()), {("a", Mend(before))}) == before
        assert blocked(Work("a", Mend(after), ()), {("b", Mend(before))}) is None
    assert blocked(Work("a", Mend.REBOOT, ()), {("a", Mend.REKEY)}) is None


def test_what_nobody_can_judge_is_not_planned() -> None:
    down = view("down", reach=Reach(False, why="silent"), unknown={"system": "silent", "secrets": "no rights"})
    odd = view("odd", unknown={"units": "no systemd", "reboot": "no systemd"})
    plan = plan_of(document(down, odd, hypervisor=Hypervisor("unreachable", why="refused the connection")))
    assert plan.mends == ()
    assert plan.not_judged == (
        NotJudged(None, ("hypervisor",), "refused the connection"),
        NotJudged("down", ("reach", "system"), "silent"),
        NotJudged("down", ("secrets",), "no rights"),
        NotJudged("odd", ("units", "reboot"), "no systemd"),
    )
    assert unjudged(plan, [Mend.REBOOT]) == [plan.not_judged[1], plan.not_judged[3]]
    assert unjudged(plan, [Mend.APPLY]) == [plan.not_judged[0]]
    assert unjudged(plan, [Mend.REKEY]) == []


WORK = (
    Work("web01", Mend.REKEY, (Wrong("recipients", ""),)),
    Work("web01", Mend.APPLY, (Wrong("guest", ""),)),
    Work("web01", Mend.DEPLOY, (Wrong("system", ""), Wrong("dirty", ""))),
)
CHOSEN = (Mend.REKEY, Mend.APPLY, Mend.DEPLOY)
VM = Guest(110, "web", drift=())


@pytest.mark.parametrize(
    ("after", "remains"),
    [
        pytest.param(view("web01", guest=VM), (), id="gone"),
        pytest.param(view("web01", UNITS, REBOOT, guest=VM), (), id="others"),
        pytest.param(view("web01", SYSTEM, guest=VM), (Left("web01", "system", SYSTEM.what),), id="still"),
        pytest.param(
            view("web01", Difference(Kind.HOSTNAME, "x", Mend.DEPLOY), guest=VM),
            (Left("web01", "hostname", "x"),),
            id="new",
        ),
        pytest.param(
            view("web01", guest=VM, unknown={"system": "no rights"}),
            (Left("web01", "system", "no rights", True), Left("web01", "dirty", "no rights", True)),
            id="unknown",
        ),
        pytest.param(view("web01"), (Left("web01", "guest", "the hypervisor did not say", True),), id="no-guest"),
        pytest.param(
            view("web01", reach=Reach(False, why="silent"), guest=VM),
            (Left("web01", "system", "silent", True), Left("web01", "dirty", "silent", True)),
            id="down",
        ),
        pytest.param(
            view("web01", guest=VM, unknown={"recipients": "no rules"}),
            (Left("web01", "recipients", "no rules", True),),
            id="rules",
        ),
    ],
)
def test_only_what_is_seen_to_be_gone_is_gone(after: HostView, remains: tuple[Left, ...]) -> None:
    assert left(WORK, CHOSEN, document(after)) == remains


def test_a_host_that_was_not_looked_at_again_is_left() -> None:
    found = left(WORK, CHOSEN, document(view("web02")))
    assert {each.kind for each in found} == {"recipients", "guest", "system", "dirty"}
    assert all(each.is_unknown for each in found)


def test_what_is_of_no_host_is_left_by_the_fleet_alone() -> None:
    work = Work(None, Mend.REKEY, (Wrong("recipients", "a.yaml"),))
    assert left([work], [Mend.REKEY], document()) == ()
    again = document(view("web01", RECIPIENTS), differences=(RECIPIENTS,))
    assert left([work], [Mend.REKEY], again) == (Left(None, "recipients", RECIPIENTS.what),)
