"""nixos-rebuild against a machine: what it is told, and what counts then is what the machine says."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nixherd.deploy import copy, rebuild
from nixherd.deploy.options import Engine
from nixherd.deploy.rebuild import Rebuild, judge
from nixherd.deploy.run import Planned, Reached
from nixherd.errors import FleetError, NotBegun, ProcessFailed, Undecided
from nixherd.process import Completed
from nixherd.ssh.destination import Destination
from tests.nixherd.deploy.scripted import BEFORE, CONFIG, NEW, OLD, SHARED, THIRD, Scripted, rolled_out, system

FAILURE = FleetError("nixos-rebuild: status 1")
NOW = replace(BEFORE, current=NEW, profile=NEW)
VALUE = Planned(Reached("x", BEFORE), replace(CONFIG, revision=None))


@pytest.mark.parametrize(
    ("action", "now", "failure", "system", "outcome", "error"),
    [
        ("switch", NOW, None, NEW, "deployed", None),
        ("boot", replace(BEFORE, profile=NEW), None, NEW, "pending reboot", None),
        ("test", replace(BEFORE, current=NEW), None, NEW, "deployed", None),
        ("switch", NOW, None, None, "deployed", None),
        ("dry-activate", BEFORE, None, NEW, "planned", None),
        ("dry-activate", BEFORE, FAILURE, NEW, None, "dev: nixos-rebuild: status 1"),
        ("switch", BEFORE, FAILURE, NEW, None, "it runs and boots what it did before"),
        ("switch", replace(NOW, current=THIRD), None, NEW, None, f"switch ended well, but what is there is {THIRD}"),
        ("boot", replace(BEFORE, profile=THIRD), FAILURE, NEW, None, f"status 1, but what is there is {THIRD}"),
        ("switch", NOW, FAILURE, NEW, "deployed, not well", f"it runs {NEW} all the same"),
        ("switch", replace(NOW, unwell=("a.service",)), None, NEW, "deployed, not well", "units fail: a.service"),
        ("boot", replace(BEFORE, profile=NEW, unwell=("a.service",)), None, NEW, "pending reboot", None),
    ],
)
def test_its_end_is_judged_by_what_is_there(
    action: str, now: Any, failure: Any, system: str | None, outcome: str | None, error: str | None
) -> None:
    _, host_run, notes = rolled_out(Scripted())
    if error:
        with pytest.raises(FleetError, match=error):
            judge(host_run, BEFORE, now, system, action, failure)
    else:
        judge(host_run, BEFORE, now, system, action, failure)
    assert (notes.end[0] if host_run.outcome else None) == outcome


def test_a_profile_that_somebody_else_moved_is_noted() -> None:
    _, host_run, notes = rolled_out(Scripted())
    judge(host_run, BEFORE, replace(NOW, profile=THIRD), NEW, "switch", None)
    assert notes.found["profile_moved"].startswith(f"its profile leads to {THIRD}, which somebody else")


def programs(monkeypatch: pytest.MonkeyPatch, *, fails: bool = False) -> list[list[str]]:
    """The command lines that are run, on this machine or towards another; none is started."""
    ran: list[list[str]] = []

    def run(argv: Any, **arguments: Any) -> Completed:
        ran.append(list(argv))
        if "--help" not in argv and fails:
            raise ProcessFailed("nixos-rebuild: status 1", 1)
        return Completed("--sudo --no-reexec", "", 0)

    for module in (rebuild, copy):
        monkeypatch.setattr(module, "run", run)
    return ran


def test_on_this_machine_it_goes_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    ran = programs(monkeypatch)
    rollout, host_run, notes = rolled_out(Scripted(is_local=True, answers={"say sudo": system(NEW)}))
    rebuild.rebuild(SHARED.evaluator, rollout, host_run, VALUE, Rebuild("switch"))
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
    rebuild.rebuild(SHARED.evaluator, rollout, host_run, VALUE, Rebuild("switch", Elsewhere(id="far")))
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
        rebuild.rebuild(SHARED.evaluator, rollout, host_run, VALUE, Rebuild("switch"))
    assert notes.stages == ["activate", "prove"]
    assert notes.found.get("current") == (OLD if kind is NotBegun else None)
