"""nixos-rebuild against a machine: what it is told, and what counts then is what the machine says."""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nixherd.base.errors import FleetError, NotBegun, ProcessFailed, Undecided
from nixherd.base.process import Completed
from nixherd.deploy import build as building
from nixherd.deploy import copy
from nixherd.deploy.build import Rebuild, judge
from nixherd.deploy.options import Engine
from nixherd.deploy.rollout import Planned, Reached
from nixherd.fleet.health_checks import Check
from nixherd.ssh.destination import Destination
from tests.nixherd.deploy.scripted import BEFORE, CONFIG, FAILED, NEW, OLD, SHARED, THIRD, Scripted, rolled_out, system

FAILURE = FleetError("nixos-rebuild: status 1")
NOW = replace(BEFORE, current=NEW, profile=NEW)
VALUE = Planned(Reached("x", BEFORE), replace(CONFIG, revision=None))


@pytest.mark.parametrize(
    ("action", "now", "failure", "system", "outcome", "error"),
    [
        ("switch", NOW, None, NEW, "deployed", None),
        ("boot", replace(BEFORE, profile=NEW), None, NEW, "pending reboot", None),
        ("test", replace(BEFORE, current=NEW), None, NEW, "deployed", None),
        ("dry-activate", BEFORE, None, NEW, "planned", None),
        ("dry-activate", BEFORE, FAILURE, NEW, None, "dev: nixos-rebuild: status 1"),
        ("switch", BEFORE, FAILURE, NEW, None, "it runs and boots what it did before"),
        ("switch", replace(NOW, current=THIRD), None, NEW, None, f"switch ended well, but what is there is {THIRD}"),
        ("boot", replace(BEFORE, profile=THIRD), FAILURE, NEW, None, f"status 1, but what is there is {THIRD}"),
        ("switch", NOW, FAILURE, NEW, "deployed, not well", f"it runs {NEW} all the same"),
        ("switch", replace(NOW, unwell=("a.service",)), None, NEW, "deployed, not well", "units fail: a.service"),
        ("boot", replace(BEFORE, profile=NEW, unwell=("a.service",)), None, NEW, "pending reboot", None),
        ("switch", replace(NOW, profile=THIRD), None, NEW, "deployed, not well", f"its profile leads to {THIRD}, not"),
        ("switch", replace(BEFORE, at_work=("x.service",)), FAILURE, NEW, "unknown", "x.service.*is still under way"),
        ("switch", replace(NOW, at_work=("x.service",)), FAILURE, NEW, "unknown", "x.service.*is still under way"),
    ],
)
def test_its_end_is_judged_by_what_is_there(
    action: str, now: Any, failure: Any, system: str, outcome: str | None, error: str | None
) -> None:
    _, host_run, notes = rolled_out(Scripted())
    if error:
        with pytest.raises(FleetError, match=error):
            judge(host_run, BEFORE, now, system, action, failure, system=system)
    else:
        judge(host_run, BEFORE, now, system, action, failure, system=system)
    assert (notes.end[0] if host_run.outcome else None) == outcome


@pytest.mark.parametrize(
    ("now", "runs", "error"),
    [
        (replace(NOW, current=THIRD), THIRD, None),
        (replace(BEFORE, current=THIRD), THIRD, f"its profile leads to {OLD}, not {NEW}"),
        (NOW, THIRD, f"what is there is {NEW}, not {THIRD}"),
        (NOW, None, f"{NEW} has no such specialisation there"),
    ],
)
def test_a_specialisation_runs_and_its_system_boots(now: Any, runs: str | None, error: str | None) -> None:
    answer = system(now.current, profile=now.profile)
    machine = Scripted(answers={"say sudo": answer, "specialisation/dark": f"{runs}\n" if runs else ""})
    rollout, host_run, notes = rolled_out(machine)
    with pytest.MonkeyPatch.context() as patch:
        programs(patch)
        expected = pytest.raises(FleetError, match=error) if error else nullcontext()
        with expected:
            request = Rebuild("switch", specialisation="dark")
            building.rebuild(SHARED.evaluator, rollout, host_run, VALUE, request)
    assert (notes.end[0] if host_run.outcome == "deployed" else None) == ("deployed" if error is None else None)


LOST = [
    ProcessFailed("ssh: status 255", 255),
    FleetError("dev: not found within 60 s"),
    OSError("no way"),
    KeyError("x"),
]


@pytest.mark.parametrize("failure", LOST)
@pytest.mark.parametrize(
    ("now", "error", "kind"),
    [
        (system(), "it runs and boots what it did before", NotBegun),
        (system(NEW), f"it runs {NEW} all the same", FleetError),
        (OSError("silence"), "it cannot be asked what it runs now: .*silence", Undecided),
    ],
)
def test_whatever_ends_it_what_is_there_is_read_back(
    monkeypatch: pytest.MonkeyPatch, failure: Exception, now: Any, error: str, kind: type[Exception]
) -> None:
    def run_towards(*words: Any) -> None:
        raise failure

    programs(monkeypatch)
    monkeypatch.setattr(building, "run_towards", run_towards)
    rollout, host_run, notes = rolled_out(Scripted(answers={"say sudo": now}))
    with pytest.raises(kind, match=error) as raised:
        building.rebuild(SHARED.evaluator, rollout, host_run, VALUE, Rebuild("switch"))
    assert str(failure).strip("'") in str(raised.value)
    assert notes.stages == ["activate", "prove"]


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        (Rebuild("swich"), "action=swich is not one of"),
        (Rebuild("switch", specialisation="a b"), "'a b' cannot name a deployment, an operator, a specialisation or"),
    ],
)
def test_a_wrong_word_is_said_before_anything_is_run(
    monkeypatch: pytest.MonkeyPatch, request_: Rebuild, error: str
) -> None:
    ran = programs(monkeypatch)
    rollout, host_run, notes = rolled_out(Scripted())
    with pytest.raises(FleetError, match=error):
        building.rebuild(SHARED.evaluator, rollout, host_run, VALUE, request_)
    assert (ran, notes.stages) == ([], [])


def programs(monkeypatch: pytest.MonkeyPatch, *, fails: bool = False) -> list[list[str]]:
    """The command lines that are run, on this machine or towards another; none is started."""
    ran: list[list[str]] = []

    def run(argv: Any, **arguments: Any) -> Completed:
        ran.append(list(argv))
        if "--help" not in argv and fails:
            raise ProcessFailed("nixos-rebuild: status 1", 1)
        return Completed("--sudo --no-reexec", "", 0)

    for module in (building, copy):
        monkeypatch.setattr(module, "run", run)
    return ran


def test_on_this_machine_it_goes_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    ran = programs(monkeypatch)
    rollout, host_run, notes = rolled_out(Scripted(is_local=True, answers={"say sudo": system(NEW)}))
    building.rebuild(SHARED.evaluator, rollout, host_run, VALUE, Rebuild("switch"))
    _, argv = ran
    assert argv[:2] == ["nixos-rebuild", "switch"]
    assert "--target-host" not in argv
    assert (notes.found["engine"], notes.found["current"]) == (Engine.NIXOS_REBUILD, NEW)
    assert notes.end[0] == "deployed"


class Elsewhere(Scripted):
    """A machine that is reached at an address of its own, by a known_hosts of its own."""

    directory = Path()

    def copy_to(self) -> Destination:
        known = self.directory / f"known-{self.id}"
        known.write_text(f"{self.id} ssh-ed25519 AAAA\n")
        return Destination(f"{self.id}.example", "root", known)


def test_the_machine_and_its_builder_are_known_in_one_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(Elsewhere, "directory", tmp_path)
    monkeypatch.setattr(type(SHARED.run), "known_hosts_of", lambda self, host_id: tmp_path)
    ran = programs(monkeypatch)
    rollout, host_run, _ = rolled_out(Elsewhere(answers={"say sudo": system(NEW)}))
    building.rebuild(SHARED.evaluator, rollout, host_run, VALUE, Rebuild("switch", Elsewhere(id="far")))
    _, argv = ran
    assert argv[argv.index("--target-host") + 1] == "root@dev.example"
    assert argv[argv.index("--build-host") + 1] == "root@far.example"
    known = (tmp_path / "with-its-builder").read_text()
    assert known == "dev ssh-ed25519 AAAA\nfar ssh-ed25519 AAAA\n"
    assert "far.example" in (tmp_path / "config-with-its-builder").read_text()


@pytest.mark.parametrize(
    ("answer", "error", "kind"),
    [
        (system(), "status 1; it runs and boots what it did before", NotBegun),
        (OSError("silence"), "status 1; it cannot be asked what it runs now: .*silence", Undecided),
        (KeyError("x"), "status 1; it cannot be asked what it runs now: .*KeyError", Undecided),
    ],
)
def test_a_failure_counts_for_what_is_read_after_it(
    monkeypatch: pytest.MonkeyPatch, answer: Any, error: str, kind: type[Exception]
) -> None:
    programs(monkeypatch, fails=True)
    rollout, host_run, notes = rolled_out(Scripted(answers={"say sudo": answer}))
    with pytest.raises(kind, match=error):
        building.rebuild(SHARED.evaluator, rollout, host_run, VALUE, Rebuild("switch"))
    assert notes.stages == ["activate", "prove"]
    assert notes.found.get("current") == (OLD if kind is NotBegun else None)


@pytest.mark.parametrize(
    ("action", "check", "end"),
    [
        ("switch", "check.0=\n", ("deployed", None)),
        ("switch", FAILED, ("deployed, not well", "cron (unit cron.service) does not pass: it says it is broken")),
        ("boot", FAILED, ("pending reboot", None)),
    ],
)
def test_health_checks_decide_where_it_activates(
    monkeypatch: pytest.MonkeyPatch, action: str, check: Any, end: tuple[str, str | None]
) -> None:
    programs(monkeypatch)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    machine = Scripted(answers={"say sudo": system(NEW), "is-active": check})
    rollout, host_run, notes = rolled_out(machine, confirm_deadline=1)
    value = replace(VALUE, checks=(Check("cron", "unit", "cron.service", timeout=1),))
    with pytest.raises(FleetError) if end[0] == "deployed, not well" else nullcontext():
        building.rebuild(SHARED.evaluator, rollout, host_run, value, Rebuild(action))
    assert notes.end[0] == end[0]
    assert (end[1] or "") in (notes.end[1] or "")
