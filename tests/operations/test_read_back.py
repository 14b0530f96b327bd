"""What is said to run, to boot or to be is what the machine answered, never what was meant (§2.6 of issue 16).

Each row plants a difference: the machine has SEEN, and MEANT is what the run is about. The line has to name SEEN.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
from pyinfra.context import ctx_host

from nixherd.base.errors import FleetError
from nixherd.deploy import build as building
from nixherd.deploy import health, plan, program, reboot
from nixherd.deploy.activate import activate
from nixherd.deploy.options import Goal
from nixherd.deploy.protocol import Kind
from nixherd.deploy.rollout import PlannedToPull, Reached, ReachedToPull, Target
from nixherd.fleet.git import Repository
from nixherd.fleet.health_checks import Check
from nixherd.fleet.models import Access
from nixherd.nix.evaluator import Evaluator
from nixherd.operations import deployment, nixos
from nixherd.pyinfra_glue import installing
from tests.nixherd.deploy.scripted import BEFORE, CONFIG, NEW, OLD, SHARED, THIRD, Scripted, rolled_out, system

SEEN, MEANT = THIRD, NEW
STANDING = f"protocol=3\nid=20261130T050000-1\nwho=me\nhostname=dev\nold={OLD}\n"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (health, reboot):
        monkeypatch.setattr(module.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(Evaluator, "evaluate", lambda self, hosts, host_id: CONFIG)
    monkeypatch.setattr(Repository, "around", lambda path: None)


Told = Callable[[pytest.MonkeyPatch], object]


def of_engine(machine: Scripted, act: Callable[[Any, Any], object], **options: Any) -> str:
    """All that the engine says of a host: its narration, the reason of its end, and the error."""
    rollout, host_run, notes = rolled_out(machine, **options)
    error = ""
    try:
        act(rollout, host_run)
    except FleetError as failure:
        error = str(failure)
    ends = [str(values["why"]) for event, _, values in notes.entries if event == "end"]
    return "\n".join((*machine.narration, *ends, error))


class RowHost(SimpleNamespace):
    """As much of a host of pyinfra as a row takes."""

    __hash__ = object.__hash__  # type: ignore[assignment]


def of_row(monkeypatch: pytest.MonkeyPatch, row: Any, machine: Scripted, **patches: Any) -> str:
    """What a row says why there is nothing to do, of a host whose machine this is."""
    rollout, host_run, _ = rolled_out(machine)
    lines: list[str] = []
    host = RowHost(
        name="dev",
        connector=machine,
        state=SimpleNamespace(failed_hosts=(), current_stage=0, inventory=(), fail_hosts=lambda hosts: None),
        current_op_hash=None,
        data=SimpleNamespace(get=lambda name, default=None: default, context=SHARED.context, host_id="dev"),
        noop=lines.append,
        log=lambda text, *styles: lines.append(text),
        log_styled=lambda text, **styles: lines.append(text),
    )
    monkeypatch.setattr(SHARED.context.keys, "pinned", lambda host_id: None)
    for module in (deployment, nixos):
        for name, value in patches.items():
            if hasattr(module, name):
                monkeypatch.setattr(module, name, value(rollout, host_run))
    with ctx_host.use(host):
        list(row._inner())
    return "\n".join(lines)


def activation(*states: str, current: str = SEEN, profile: str = SEEN, goal: Goal = Goal.SWITCH, **options: Any) -> str:
    """An activation of MEANT whose machine says these states, one after the other."""
    answer = f"{STANDING}current={current}\nprofile={profile}\n"
    looks = [f"{answer}state={state}\n" for state in states]
    machine = Scripted(answers={"begin": looks[0], "say sudo": system(SEEN, boot_id="2"), "look": looks[1:] or looks})
    return of_engine(machine, lambda rollout, run: activate(rollout, run, Target(MEANT), BEFORE), goal=goal, **options)


def pulled() -> str:
    machine = Scripted(access=Access.TRIGGER, answers={"trigger": f"{SEEN}\n"})
    value = PlannedToPull(ReachedToPull("x"), CONFIG)
    return of_engine(machine, lambda rollout, run: program.trigger(rollout, run, value))


def checked() -> str:
    machine = Scripted(answers={"say sudo": system(SEEN)})
    checks = (Check("cron", "unit", "cron.service", timeout=1),)
    return str(health.unwell(machine, Kind.SYSTEM, replace(BEFORE, current=MEANT), checks, MEANT)[0])


def rebooted(*, expected: str) -> str:
    machine = Scripted(answers={"systemctl reboot": "", "say sudo": system(SEEN, boot_id="2")})
    return of_engine(machine, lambda rollout, run: reboot.reboot_and_prove(run, BEFORE, expected, ()))


def rebuilt(action: str, **now: Any) -> str:
    there = replace(BEFORE, **{"current": SEEN, "profile": SEEN, **now})
    return of_engine(
        Scripted(),
        lambda rollout, run: building.judge(run, BEFORE, there, MEANT, action, FleetError("status 1"), system=MEANT),
    )


def planned_unwell(goal: Goal) -> str:
    """A machine that has it already, by a specialisation's path or another spelling of it."""
    machine = Scripted(answers={"": system(SEEN, unwell="a.service")})

    def act(rollout: Any, run: Any) -> None:
        plan.plan(SHARED.evaluator, rollout, run, plan.reach(run), ("dev",))

    return of_engine(machine, act, goal=goal)


def reached(monkeypatch: pytest.MonkeyPatch) -> str:
    machine = Scripted(answers={"say sudo": system(SEEN)})
    return of_row(
        monkeypatch, deployment.reach, machine, begin_rollout=lambda rollout, run: lambda host: (rollout, run)
    )


def evaluated(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(plan, "is_done", lambda options, running, toplevel: True)
    value = Reached("x", replace(BEFORE, current=SEEN, profile=SEEN))

    def current(rollout: Any, run: Any) -> Any:
        run.value = value
        return lambda host: (rollout, run)

    machine = Scripted(answers={"": system(SEEN)})
    return of_row(
        monkeypatch, deployment.evaluate, machine, current=current,
        reached_ids=lambda rollout, run: lambda host: ("dev",),
    )  # fmt: skip


def rebuild_row(monkeypatch: pytest.MonkeyPatch, answer: str = system(SEEN)) -> str:
    value = Reached("x", replace(BEFORE, current=SEEN, profile=SEEN))
    return of_row(
        monkeypatch, nixos.rebuild, Scripted(answers={"": answer}),
        begin_reached=lambda rollout, run: lambda host, **options: (rollout, run, value),
        has_it=lambda rollout, run: lambda running, system, goal: True,
    )  # fmt: skip


def installed(row: Any) -> Told:
    """What a row says of an installed machine that its installation is done with."""

    def told(monkeypatch: pytest.MonkeyPatch) -> str:
        machine: dict[str, Any] = {"current_system": SEEN, "id": "nixos", "variant": None, "jobs": {}}
        monkeypatch.setattr(installing, "require_as_declared", lambda host, config, machine: None)
        return of_row(
            monkeypatch, row, Scripted(),
            machine_of=lambda rollout, run: lambda host, verb=None: machine,
            evaluated=lambda rollout, run: lambda host: CONFIG,
            is_installed=lambda rollout, run: lambda machine: True,
        )  # fmt: skip

    return told


def verified(monkeypatch: pytest.MonkeyPatch) -> str:
    """The line, and what is left for CI: all of it as the machine has it."""
    lines: list[str] = []
    left: dict[str, str] = {}
    state = SimpleNamespace(note=left.__setitem__)
    run = SimpleNamespace(state_of=lambda host_id: state, journal=rolled_out(Scripted())[2])
    context = SimpleNamespace(run=run, fleet=SimpleNamespace(vm_of=lambda host_id: None))
    monkeypatch.setattr(installing, "context_of", lambda host: context)
    machine: Any = dict.fromkeys(("booted_system", "revision", "hostname", "boot_id", "root"), "x") | {
        "current_system": SEEN
    }
    place: Any = SimpleNamespace(address="192.0.2.1", host_key="ssh-ed25519 AAAA")
    installing.report(cast(Any, SimpleNamespace(log=lines.append)), CONFIG, machine, place)
    assert json.loads(left[installing.VERIFIED])["system"] == SEEN
    return "\n".join(lines)


ROWS: dict[str, Told] = {
    "deployment.reach": reached,
    "deployment.evaluate": evaluated,
    "nixos.rebuild": rebuild_row,
    "nixos.verify": installed(nixos.verify),
    "nixos.verify's report": verified,
    "nixos.reboot_installed": installed(nixos.reboot_installed),
    "activate: its process is gone": lambda _: activation("keeping", "lost"),
    "activate: kept, it says": lambda _: activation("kept"),
    "activate: kept, another runs": lambda _: activation("kept", profile=MEANT),
    "activate: rebooted meanwhile": lambda _: activation_forgotten(),
    "activate: the next boot brings": lambda _: activation("kept", current=OLD, profile=SEEN, goal=Goal.BOOT),
    "pull": lambda _: pulled(),
    "health": lambda _: checked(),
    "reboot": lambda _: rebooted(expected=MEANT),
    "nixos-rebuild switch": lambda _: rebuilt("switch"),
    "nixos-rebuild boot": lambda _: rebuilt("boot"),
    "plan: unwell, runs": lambda monkeypatch: unwell(monkeypatch, Goal.SWITCH),
    "plan: unwell, boots": lambda monkeypatch: unwell(monkeypatch, Goal.BOOT),
}


def activation_forgotten() -> str:
    """It has rebooted in the middle, and brought another system than the one of before."""
    gone = "protocol=3\nstate=none\n"
    begun = f"{STANDING}current={OLD}\nprofile={OLD}\nstate=keeping\n"
    machine = Scripted(answers={"begin": begun, "say sudo": system(SEEN, boot_id="2"), "look": gone})
    return of_engine(machine, lambda rollout, run: activate(rollout, run, Target(MEANT), BEFORE))


def unwell(monkeypatch: pytest.MonkeyPatch, goal: Goal) -> str:
    monkeypatch.setattr(plan, "is_done", lambda options, running, toplevel: True)
    return planned_unwell(goal)


@pytest.mark.parametrize("row", ROWS)
def test_a_line_that_reports_prints_what_was_read(monkeypatch: pytest.MonkeyPatch, row: str) -> None:
    text = str(ROWS[row](monkeypatch))
    assert SEEN in text
    for word in ("runs", "boots", "brings", "into", "is"):
        assert f"{word} {MEANT}" not in text


def test_a_deployment_that_boots_says_what_runs_after_the_boot() -> None:
    """Not what ran when it was kept, which was the old system."""
    kept = f"{STANDING}current={OLD}\nprofile={MEANT}\nstate=kept\n"
    after = {"say sudo": system(MEANT, boot_id="2"), "is-system-running": "running\n"}
    machine = Scripted(answers={"begin": kept, "systemctl reboot": "", **after})
    text = of_engine(
        machine, lambda rollout, run: activate(rollout, run, Target(MEANT), BEFORE), goal=Goal.BOOT, reboot=True
    )
    assert f"deployed: {MEANT}" in text
    assert f"deployed: {OLD}" not in text


@pytest.mark.parametrize(
    ("check", "problem"),
    [("check.0=", None), ("check.0=it says failed", "cron (unit cron.service) does not pass: it says failed")],
)
def test_a_machine_that_runs_it_already_is_asked_the_configurations_health_checks(
    monkeypatch: pytest.MonkeyPatch, check: str, problem: str | None
) -> None:
    health = {"cron": {"unit": "cron.service", "timeout": 1}}
    config = replace(CONFIG, toplevel=SEEN, health=health)
    monkeypatch.setattr(Evaluator, "evaluate", lambda self, hosts, host_id: config)
    words = rebuild_row(monkeypatch, f"{system(SEEN)}{check}\n")
    assert f"dev runs {SEEN} already" in words
    assert (problem or "") in words
    assert ("nothing was activated" in words) == (problem is not None)
