"""What is copied, built, noted and followed on a machine."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nixherd.deploy import build, changes, copy, signing
from nixherd.deploy import job as jobs
from nixherd.deploy.program import note_alone
from nixherd.deploy.values import Built, Copied, Planned, Reached
from nixherd.errors import DeadlineExceeded, FleetError, NotBegun, ProcessFailed, Usage
from nixherd.fleet.models import Access
from nixherd.nix import commands
from nixherd.nix.builder import Builder
from nixherd.process import Completed
from nixherd.ssh.sudo import Sudo
from nixherd.ssh.transient_unit import Job
from tests.nixherd.deploy.machines import BEFORE, CONFIG, FAILED, SHARED
from tests.nixherd.deploy.scripted import NEW, OLD, REVISION, Scripted, rolled_out

NOTED = f"protocol=3\nstate=none\nnew={NEW}\nkept_as={NEW} {REVISION} 2026-11-29T21:03:27Z me r\ncurrent={NEW}\n"


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (NOTED, None),
        (f"{NOTED}busy=me@x\n", "me@x is deploying to it"),
        ("protocol=3\nrefused=full\n", "full"),
        ("protocol=3\nstate=none\n", "was told to note revision .*, and notes None"),
        (FAILED, "noting the revision failed: it is broken"),
    ],
)
def test_a_revision_alone_is_noted_and_read_back(answer: Any, error: str | None) -> None:
    rollout, host_run, notes = rolled_out(Scripted(answers={"": answer}))
    value = Planned(Reached("x", BEFORE), CONFIG, revision_only=True)
    if error:
        with pytest.raises(FleetError, match=error):
            note_alone(rollout, host_run, value)
        return
    note_alone(rollout, host_run, value)
    assert notes.end == ("revision only", "old → 4f2c4f2c4f2c")


def test_a_program_of_the_version_before_notes_none() -> None:
    rollout, host_run, notes = rolled_out(Scripted(access=Access.PUSH_CLOSURE))
    note_alone(rollout, host_run, Planned(Reached("x", replace(BEFORE, protocol=2)), CONFIG))
    assert notes.end[0] == "unchanged"


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


def test_through_whom_a_store_takes_what_is_not_signed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("fleet-1:secret")
    key.chmod(0o600)
    public = Completed("fleet-1:public\n", "", 0)
    monkeypatch.setattr(signing, "run", lambda argv, **arguments: public)
    settings = json.dumps({"trusted-public-keys": {"value": ["fleet-1:public"]}})
    plain: dict[str, Any] = {"user": "me"}
    access = signing.store_access
    assert access(Scripted(), [NEW], None, is_nixos=True) is None
    assert access(Scripted(**plain, answers={"config": settings}), [NEW], str(key), is_nixos=True) is None
    assert access(Scripted(**plain), [NEW], None, is_nixos=True) == Sudo()
    asks = {"sudo -n": Completed("", "", 1)}
    sudo = access(Scripted(**plain, answers=asks, has_password=True), [NEW], None, is_nixos=True)
    assert sudo == Sudo("secret")
    with pytest.raises(FleetError, match="sudo does not let it be root: it asks for a password"):
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
    monkeypatch.setattr(build, "run_towards", run_towards)
    assert build.build(SHARED.builder, rollout, host_run, value, None, [CONFIG]) == Built(value)
    assert build.build(SHARED.builder, rollout, host_run, value, far, []) == Built(value)
    assert build.build(SHARED.builder, rollout, host_run, value, machine, []).is_there
    assert made == [{"dev": [f"{NEW}.drv"]}, {"dev": [f"{NEW}.drv"]}, "far", "dev"]
    fails = True
    for builder, error in ((far, "building on far failed"), (machine, "dev: building on it failed")):
        with pytest.raises(FleetError, match=error):
            build.build(SHARED.builder, rollout, host_run, value, builder, [])


def test_what_changes_is_said_of_what_was_built_there() -> None:
    closure = f"{OLD} 100\n"
    answers = {"path-info": closure, "readlink": "kernel /b\n", "switch-inhibitors": '{"systemd": "2"}', "init-": ""}
    rollout, host_run, notes = rolled_out(Scripted(answers=answers))
    before = replace(BEFORE, parts={"kernel": "/a"}, inhibitors='{"systemd": "1"}')
    built = Built(Planned(Reached("x", before), CONFIG), is_there=True)
    shown = changes.show(rollout, host_run, built, [])
    assert shown.changes.reboot_for == ("kernel",)
    assert shown.changes.inhibitors == ("systemd: 1 → 2",)
    assert notes.found["size_before"] == 100


@pytest.mark.parametrize(
    ("looks", "error"),
    [
        ([OSError("gone"), "running\nabc\n", "key 0\n"], None),
        (["other 0\n", "key 0\n"], None),
        (["key 3\nno room\n"], "try failed with status 3: no room"),
        (["none\nlast\n"], "try was ended .*: last"),
        (["other 0\n", "other 0\n"], "try was ended"),
    ],
)
def test_a_job_is_followed_to_its_end(looks: list[Any], error: str | None) -> None:
    machine = Scripted(answers={"systemd-run": "", "is-active": looks})
    task = Job("try", "key", "true", 5)
    if error:
        with pytest.raises(FleetError, match=error):
            jobs.run_job(machine, task)
    else:
        jobs.run_job(machine, task)


def test_a_job_past_its_deadline_is_said_to_be_that(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "GRACE", -10)
    machine = Scripted(answers={"systemd-run": "", "is-active": "running\n"})
    with pytest.raises(DeadlineExceeded, match="try not done within 5 s; last: no output"):
        jobs.run_job(machine, Job("try", "key", "true", 5))
