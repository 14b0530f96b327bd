"""Builds, copies, and systems that nixos-rebuild brings; answered by script."""

import json
import traceback
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from nixherd.base.becoming_root import Become, Root
from nixherd.base.errors import DeadlineExceeded, FleetError, NotBegun, ProcessFailed, Undecided, Usage
from nixherd.base.process import Completed
from nixherd.base.waiting import Stalled, Watch
from nixherd.deploy import build, copy
from nixherd.deploy import build as building
from nixherd.deploy.copy import store_access
from nixherd.deploy.machine import ANSWER_DEADLINE
from nixherd.deploy.options import Engine
from nixherd.deploy.rollout import Built, Copied, Planned, Reached
from nixherd.fleet.models import Access
from nixherd.nix import commands
from nixherd.nix.builder import Builder
from nixherd.nix.rebuild import Flavour
from nixherd.ssh.destination import Destination
from tests.nixherd.deploy.scripted import (
    BEFORE,
    CONFIG,
    FAILED,
    NEW,
    SHARED,
    Scripted,
    rolled_out,
    system,
)


def test_a_copy_is_held_made_and_made_again_without_caches(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Scripted()
    _, host_run, _ = rolled_out(machine)
    host_run.value = Built(Planned(Reached("x", BEFORE), CONFIG))
    seen: list[bool] = []

    def run(argv: Any, **arguments: Any) -> Completed:
        seen.append("--substitute-on-destination" in argv or "-s" in argv)
        if len(seen) < 2:
            raise ProcessFailed("copy: no cache", 1, "no cache")
        return Completed("", "", 0)

    monkeypatch.setattr(copy, "run", run)
    copy.copy(host_run)
    assert isinstance(host_run.value, Copied)
    assert "ln -sfn" in machine.scripts[0]
    assert machine.are_roots("ln -sfn"), "the collector's roots are root's"
    assert any("copying again, without the machine's own caches" in line for line in machine.narration)
    host_run.value = Planned(Reached("x", BEFORE), CONFIG)
    with pytest.raises(NotBegun, match="it was not built"):
        copy.copy(host_run)


def test_a_copy_that_fails_begins_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    _, host_run, _ = rolled_out(Scripted())
    host_run.value = Built(Planned(Reached("x", BEFORE), CONFIG))

    def run(argv: Any, **arguments: Any) -> Completed:
        raise ProcessFailed("x", 1, "error: cannot add path because it lacks a signature by a trusted key")

    monkeypatch.setattr(copy, "run", run)
    with pytest.raises(NotBegun, match="it cannot be copied: dev: its store takes what a key"):
        copy.copy(host_run)


@pytest.mark.parametrize(
    ("machine", "value", "engine", "left"),
    [
        (Scripted(), Built(Planned(Reached("x", BEFORE), CONFIG)), Engine.NIXOS_REBUILD, True),
        (Scripted(user="me"), Built(Planned(Reached("x", BEFORE), CONFIG)), Engine.NIXOS_REBUILD, False),
        (Scripted(user="me", is_local=True), Built(Planned(Reached("x", BEFORE), CONFIG)), Engine.NIXOS_REBUILD, True),
        (Scripted(user="me"), Planned(Reached("x", BEFORE), CONFIG), Engine.NIXOS_REBUILD, True),
        (Scripted(), Built(Planned(Reached("x", BEFORE), CONFIG)), Engine.GUARDED, False),
    ],
    ids=["root", "plain-built", "here", "plain-unbuilt", "guarded"],
)
def test_who_copies(machine: Scripted, value: Any, engine: Engine, left: bool) -> None:
    _, host_run, _ = rolled_out(machine, engine=engine)
    assert copy.is_left_to_nixos_rebuild(host_run, value) is left


def test_a_copy_without_caches_is_made_once_and_here_not_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[Any] = []

    def run(argv: Any, **arguments: Any) -> Completed:
        ran.append(argv)
        raise ProcessFailed("copy: broken", 1, "broken")

    monkeypatch.setattr(copy, "run", run)
    copy.copy_closure(Scripted(is_local=True), [NEW], is_nixos=True)
    assert ran == []
    with pytest.raises(ProcessFailed, match="broken"):
        copy.copy_closure(Scripted(), [NEW], is_nixos=True, substitute=False)
    assert len(ran) == 1


def test_a_program_is_run_again_where_the_machine_has_moved_to(monkeypatch: pytest.MonkeyPatch) -> None:
    moving = Scripted()
    addresses = iter(("192.0.2.1", "192.0.2.2", "192.0.2.2"))
    moving.copy_to = lambda: Destination(next(addresses), "root", Path("/dev/null"))  # type: ignore[method-assign]
    targets: list[str] = []

    def run(argv: Any, **arguments: Any) -> Completed:
        targets.append(argv[-1])
        if argv[-1] == "192.0.2.1":
            raise ProcessFailed("ssh: no route", 255, "no route to host")
        return Completed("done", "", 0)

    monkeypatch.setattr(copy, "run", run)
    assert copy.run_towards(moving, lambda to: (["send", to.address], {}), 5).stdout == "done"
    assert targets == ["192.0.2.1", "192.0.2.2"]
    assert moving.connections == 1


def test_why_a_program_failed_is_said_where_the_machine_is_not_there_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(argv: Any, **arguments: Any) -> Completed:
        raise ProcessFailed("nix copy failed: no space left on device", 1, "")

    monkeypatch.setattr(copy, "run", run)
    for lost in (DeadlineExceeded("dev: not within 300 s"), OSError("not within the disk's room")):
        with pytest.raises(FleetError, match=r"no space left on device; then it could not be reached again: .*not"):
            copy.run_towards(Scripted(unreachable=[lost]), lambda to: (["send"], {}), 5)


def test_a_login_shell_that_breaks_the_protocol_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    noisy = Scripted()
    noisy.breaks = lambda protocol: f"{protocol}: its bashrc prints"  # type: ignore[method-assign]

    def run(argv: Any, **arguments: Any) -> Completed:
        raise ProcessFailed("x", 1, "error: protocol mismatch, got 'hello'")

    monkeypatch.setattr(copy, "run", run)
    with pytest.raises(FleetError, match="dev: Nix's protocol: its bashrc prints"):
        copy.run_towards(noisy, lambda to: (["send"], {}), 5)
    assert noisy.connections == 0


@pytest.mark.parametrize(
    ("machine", "seen"),
    [
        (Scripted(answers={"/proc": "1 2 3"}), "1 2 3"),
        (Scripted(answers={"/proc": OSError("gone")}), None),
        (Scripted(answers={"/proc": FAILED}), None),
        (Scripted(access=Access.PUSH_CLOSURE, answers={"/proc": "1"}), None),
    ],
    ids=["seen", "gone", "failed", "forced"],
)
def test_progress_there_is_unknown_where_it_cannot_be_seen(
    monkeypatch: pytest.MonkeyPatch, machine: Scripted, seen: str | None
) -> None:
    looked: list[str | None] = []

    def run(argv: Any, *, watch: Any, **arguments: Any) -> Completed:
        looked.append(watch.there())
        return Completed("", "", 0)

    monkeypatch.setattr(copy, "run", run)
    copy.copy_towards(machine, lambda to: (["send"], {}), 5)
    assert looked == [seen]
    assert not any(each.sudo for each in machine.commands)


def test_through_whom_a_store_takes_what_is_not_signed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("fleet-1:secret")
    key.chmod(0o600)
    public = Completed("fleet-1:public\n", "", 0)
    monkeypatch.setattr(copy, "run", lambda argv, **arguments: public)
    settings = json.dumps({"trusted-public-keys": {"value": ["fleet-1:public"]}})
    plain: dict[str, Any] = {"user": "me"}
    access = store_access
    assert access(Scripted(), [NEW], None, is_nixos=True) is None
    trusting = Scripted(**plain, answers={"config": settings})
    assert access(trusting, [NEW], str(key), is_nixos=True) is None
    assert [(each.sudo, each.deadline) for each in trusting.commands] == [(False, ANSWER_DEADLINE)]
    free = Scripted(**plain, become=Become.DOAS, answers={"doas -n": "free\n"})
    assert access(free, [NEW], None, is_nixos=True) == Root(Become.DOAS)
    asks = {"sudo -n": "asks\n"}
    asking = Scripted(**plain, answers=asks, has_password=True)
    assert access(asking, [NEW], None, is_nixos=True) == Root(password="secret")
    assert [each.sudo for each in asking.commands] == [False, True], "the password is tried before Nix needs it"
    with pytest.raises(FleetError, match="sudo asks for a password there; give it on stdin"):
        access(Scripted(**plain, answers=asks), [NEW], None, is_nixos=True)
    with pytest.raises(FleetError, match="sudo does not let it be root: it is broken"):
        access(Scripted(**plain, answers={**asks, "true": FAILED}, has_password=True), [NEW], None, is_nixos=True)
    with pytest.raises(FleetError, match="expected JSON from nix"):
        access(Scripted(**plain, answers={"config": "no"}), [NEW], str(key), is_nixos=True)
    with pytest.raises(Usage, match="no such file"):
        access(Scripted(), [NEW], str(tmp_path / "none"), is_nixos=True)
    monkeypatch.setattr(commands, "parse_signatures", lambda text: [])
    with pytest.raises(FleetError, match="its store takes what a key"):
        access(Scripted(access=Access.PUSH_CLOSURE), [NEW], None, is_nixos=True)


def test_who_builds(monkeypatch: pytest.MonkeyPatch) -> None:
    machine, far = Scripted(), Scripted(id="far")

    def machines(host_id: str) -> Any:
        return far

    assert build.builder_of(SHARED.fleet, machine, "local", machines) is None
    assert build.builder_of(SHARED.fleet, machine, "target", machines) is machine
    assert build.builder_of(SHARED.fleet, machine, "far", machines) is far
    with pytest.raises(Usage, match="build_on=none is neither local, target nor a host of the fleet"):
        build.builder_of(SHARED.fleet, machine, "none", machines)
    far.access = Access.TRIGGER
    with pytest.raises(Usage, match="far takes forced commands alone and builds for nobody"):
        build.builder_of(SHARED.fleet, machine, "far", machines)


ROOT = str(Path(build.__file__).parents[1])


def entered() -> list[str]:
    """The files of the library on the stack, from the outside in, each for as long as the stack stays in it."""
    files = (frame.filename for frame in traceback.extract_stack() if frame.filename.startswith(ROOT))
    return [name for name, _ in groupby(files)]


def test_no_stack_of_a_copy_or_a_build_elsewhere_enters_a_file_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows that `make bench ONLY=trace` has no host for."""
    stacks: list[list[str]] = []

    class Seen(Scripted):
        def run(self, *words: Any, **more: Any) -> Completed:
            stacks.append(entered())
            return Completed("busy", "", 0)

        def copy_to(self) -> Destination:
            stacks.append(entered())
            return super().copy_to()

    monkeypatch.setitem(Watch.__init__.__kwdefaults__, "patience", 0.4)  # type: ignore[arg-type]
    with pytest.raises(Stalled):
        copy.copy_towards(Seen(), lambda to: (["sleep", "30"], {}), 30)
    monkeypatch.setattr(commands, "build_from", lambda installables, to: (["true"], {}))
    monkeypatch.setattr(Builder, "_build", lambda *words: [])
    rollout, host_run, _ = rolled_out(Seen())
    build.build(SHARED.builder, rollout, host_run, Planned(Reached("x", BEFORE), CONFIG), Seen(id="far"), [])
    assert any("process.py" in name for stack in stacks for name in stack), "the machine was looked at meanwhile"
    assert any("builder.py" in name for stack in stacks for name in stack)
    assert [stack for stack in stacks if len(set(stack)) < len(stack)] == []


def test_a_build_here_there_and_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    machine, far = Scripted(), Scripted(id="far")
    rollout, host_run, _ = rolled_out(machine)
    value = Planned(Reached("x", BEFORE), CONFIG)
    made: list[Any] = []

    def realise(self: Any, derivations: Any, host_id: str, tell: Any, fetch: Any = None) -> None:
        made.append(dict(derivations))
        if fetch:
            fetch([f"{NEW}.drv^*"])

    fails = False

    def run_towards(machine: Any, command: Any, timeout: float, tell: Any) -> None:
        if fails:
            raise ProcessFailed("x", 1, "error: builder failed")
        made.append(machine.id)

    monkeypatch.setattr(Builder, "realise", realise)
    for module in (build, copy):
        monkeypatch.setattr(module, "run_towards", run_towards)
    assert build.build(SHARED.builder, rollout, host_run, value, None, [CONFIG]) == Built(value)
    assert build.build(SHARED.builder, rollout, host_run, value, far, []) == Built(value)
    assert machine.commands == far.commands == []
    assert build.build(SHARED.builder, rollout, host_run, value, machine, []).is_there
    assert machine.are_roots("ln -sfn")
    assert made == [{"dev": [f"{NEW}.drv"]}, {"dev": [f"{NEW}.drv"]}, "far", "dev"]
    fails = True
    for builder, error in ((far, "building on far failed"), (machine, "dev: building on it failed")):
        with pytest.raises(FleetError, match=error):
            build.build(SHARED.builder, rollout, host_run, value, builder, [])


def test_nixos_rebuild_is_judged_by_what_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    value = Planned(Reached("x", BEFORE), replace(CONFIG, revision=None))
    for answer, status, error in ((system(NEW), 0, None), (system(), 1, "runs and boots what it did before")):
        rollout, host_run, _ = rolled_out(Scripted(answers={"say sudo": answer}), engine=Engine.NIXOS_REBUILD)
        rollout.flavour.value = Flavour("--sudo", "--no-reexec")

        def run(argv: Any, status: int = status, **arguments: Any) -> Completed:
            if status:
                raise ProcessFailed("nixos-rebuild: status 1", 1)
            return Completed("", "", 0)

        monkeypatch.setattr(copy, "run", run)
        request = building.Rebuild("switch")
        if error:
            with pytest.raises(NotBegun, match=error):
                building.rebuild_in_turn(SHARED.evaluator, rollout, host_run, value, request)
        else:
            building.rebuild_in_turn(SHARED.evaluator, rollout, host_run, Copied(Built(value)), request)
            assert host_run.outcome == "deployed"
    rollout, host_run, _ = rolled_out(Scripted(answers={"say sudo": OSError("silence")}))
    rollout.flavour.value = Flavour("--sudo", "--no-reexec")
    with pytest.raises(Undecided, match="it cannot be asked what it runs now: silence"):
        building.rebuild(SHARED.evaluator, rollout, host_run, value, request)
