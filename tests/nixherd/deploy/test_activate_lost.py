"""An activation whose machine falls silent, prints noise, or says what it does not show; answered by script."""

import time
from contextlib import nullcontext
from typing import Any

import pytest

from nixherd.base.errors import DeadlineExceeded, Exit, FleetError, NeedsBoot, NotBegun, NotSent, Undecided, exit_of
from nixherd.base.process import Completed
from nixherd.deploy import activate as module
from nixherd.deploy.activate import activate
from nixherd.deploy.options import Goal
from nixherd.deploy.rollout import Target
from nixherd.fleet.models import Access
from tests.nixherd.deploy.scripted import (
    BEFORE,
    FAILED,
    NEW,
    OLD,
    REVISION,
    THIRD,
    Scripted,
    answers,
    rolled_out,
    system,
)

STATE = system(NEW, boot_id="2")


def test_a_connection_that_ends_without_an_answer_says_nothing_of_the_deployment() -> None:
    machine = Scripted(answers={"begin": Completed("", "", 1), "look": answers("kept")})
    rollout, host_run, notes = rolled_out(machine)
    activate(rollout, host_run, Target(NEW), BEFORE)
    assert notes.end[0] == "deployed"
    assert any("the connection ended without an answer" in line for line in machine.narration)


GONE = "protocol=3\nstate=none\n"


@pytest.mark.parametrize(
    ("begun", "error"),
    [
        (OSError("gone"), "dev: gone; it has not begun 0 s later; deploy it again"),
        ("nonsense", "did not say how its deployment stands, but 'nonsense'; it has not begun"),
        (Completed("", "Killed", 1), "beginning the deployment failed: Killed; it has not begun"),
    ],
)
def test_what_never_began_is_said_to_be_that(monkeypatch: pytest.MonkeyPatch, begun: object, error: str) -> None:
    monkeypatch.setattr(module, "BEGINNING", 0.0)
    machine = Scripted(answers={" begin ": begun, " look ": GONE, "say sudo": system()})
    rollout, host_run, _ = rolled_out(machine)
    with pytest.raises(NotBegun, match=error):
        activate(rollout, host_run, Target(NEW), BEFORE)


@pytest.mark.parametrize(
    ("now", "error", "end"),
    [
        (system(boot_id="2"), f"it rebooted in the middle of the activation and runs {OLD}, as before", "rolled back"),
        (STATE, f"it has rebooted meanwhile and runs {NEW}", "unknown"),
        (system(NEW), f"it has no notes of this deployment, and runs {NEW} and boots {NEW} now, not {OLD}", "unknown"),
        (system(profile=NEW), f"it has no notes of this deployment, and runs {OLD} and boots {NEW} now", "unknown"),
        (OSError("silence"), "it cannot be asked what it runs now: silence", "unknown"),
    ],
)
def test_what_left_no_notes_may_have_begun_all_the_same(
    monkeypatch: pytest.MonkeyPatch, now: object, error: str, end: str
) -> None:
    """The connection was lost because the activation brought the machine down, say."""
    monkeypatch.setattr(module, "BEGINNING", 0.0)
    machine = Scripted(answers={" begin ": OSError("gone"), " look ": GONE, "say sudo": now})
    rollout, host_run, notes = rolled_out(machine)
    with pytest.raises(FleetError, match=error) as raised:
        activate(rollout, host_run, Target(NEW), BEFORE)
    assert notes.end[0] == end
    assert not isinstance(raised.value, NotBegun)


@pytest.mark.parametrize("begun", [OSError("gone"), "nonsense", "protocol=3\nid=x\nstate=arm", FAILED])
def test_what_begins_after_its_answer_was_lost_is_followed(monkeypatch: pytest.MonkeyPatch, begun: object) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    machine = Scripted(answers={" begin ": begun, " look ": [GONE, GONE, *answers("activating"), *answers("kept")]})
    rollout, host_run, notes = rolled_out(machine)
    activate(rollout, host_run, Target(NEW), BEFORE)
    assert notes.end == ("deployed", None)


@pytest.mark.parametrize(
    ("begun", "error"),
    [
        (NotSent("no route"), "it was not told to begin: no route"),
        (
            Completed("", "sudo: a password is required\n", 1),
            "failed: .*a password is required",
        ),
    ],
)
def test_a_machine_that_was_told_nothing_is_not_looked_at(begun: object, error: str) -> None:
    machine = Scripted(answers={" begin ": begun})
    rollout, host_run, _ = rolled_out(machine)
    with pytest.raises(NotBegun, match=error):
        activate(rollout, host_run, Target(NEW), BEFORE)
    assert not any(" look " in script for script in machine.scripts)


def test_a_machine_that_says_nothing_but_noise_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REVERT", -12.8)
    machine = Scripted(answers={" begin ": "welcome\n", " look ": "welcome\n"})
    rollout, host_run, notes = rolled_out(machine)
    with pytest.raises(Undecided, match=r"it has not said how it stands for 13 s \(.*but 'welcome"):
        activate(rollout, host_run, Target(NEW), BEFORE)
    assert notes.end[0] == "unknown"


@pytest.mark.parametrize(
    ("look", "revert", "error"),
    [
        (OSError("silence"), -12.8, r"it has not said how it stands for 13 s \(silence\)"),
        ("reverting", -13, "it was still reverting when its deadlines were over"),
    ],
)
def test_a_machine_that_comes_to_no_end_in_time_is_unknown(
    monkeypatch: pytest.MonkeyPatch, look: Exception | str, revert: float, error: str
) -> None:
    monkeypatch.setattr(module, "REVERT", revert)
    looks = look if isinstance(look, Exception) else answers(look)
    machine = Scripted(answers={"begin": answers("reverting"), "look": looks})
    rollout, host_run, notes = rolled_out(machine)
    with pytest.raises(Undecided, match=error):
        activate(rollout, host_run, Target(NEW), BEFORE)
    assert notes.end[0] == "unknown"


def test_what_is_kept_and_cannot_be_told_to_boot_has_changed() -> None:
    machine = Scripted(answers={"begin": answers("kept", current=OLD), "systemctl reboot": NotSent("no route")})
    rollout, host_run, _ = rolled_out(machine, reboot=True, goal=Goal.BOOT)
    with pytest.raises(FleetError, match=f"not told to reboot: no route; its next boot brings {NEW}") as raised:
        activate(rollout, host_run, Target(NEW), BEFORE)
    assert exit_of(raised.value, changed=True) is Exit.FAILED


@pytest.mark.parametrize(
    ("state", "error", "kind"),
    [
        (STATE.replace(NEW, OLD), "it rebooted in the middle of the activation and runs", FleetError),
        (STATE, "it has rebooted meanwhile and runs", Undecided),
        (STATE.replace("boot_id=2", "boot_id=1"), "no notes of this deployment any more", Undecided),
    ],
)
def test_a_boot_in_the_middle_is_told_by_what_runs_after_it(state: str, error: str, kind: type[Exception]) -> None:
    gone = "protocol=3\nstate=none\n"
    machine = Scripted(answers={"begin": answers("keeping"), "say sudo": state, "look": gone})
    rollout, host_run, _ = rolled_out(machine)
    with pytest.raises(kind, match=error):
        activate(rollout, host_run, Target(NEW), BEFORE)


def test_a_word_that_is_lost_is_asked_about() -> None:
    looks = [*answers("proving"), *answers("kept")]
    machine = Scripted(answers={"begin": answers("proving"), " say ": OSError("cut off"), "look": looks})
    rollout, host_run, notes = rolled_out(machine)
    activate(rollout, host_run, Target(NEW), BEFORE)
    assert notes.end[0] == "deployed"
    assert "no answer: cut off" in machine.narration


def test_a_machine_that_lets_nobody_in_afterwards_is_not_kept() -> None:
    machine = Scripted(
        answers={"begin": answers("proving"), " say ": answers("reverted", current=OLD, more="why=told\n")}
    )
    machine.unreachable = [DeadlineExceeded("not within 3 s")]
    rollout, host_run, notes = rolled_out(machine)
    with pytest.raises(FleetError, match="it cannot be asked after the activation: not within 3 s; told; it went back"):
        activate(rollout, host_run, Target(NEW), BEFORE)
    assert notes.stages == ["activate", "prove", "roll back"]


@pytest.mark.parametrize(
    ("state", "current", "words"),
    [
        ("reverted", OLD, "it went back"),
        ("stuck", NEW, f"it is stuck on {NEW}, since going back fails"),
        ("lost", NEW, f"it runs {NEW}, and ran {OLD} before"),
    ],
)
def test_why_nobody_could_ask_it_is_said_of_a_machine_that_ended_it_meanwhile(
    state: str, current: str, words: str
) -> None:
    """Its new sudo asks for a password while it still activates, and nobody could confirm it."""
    looks = [
        Completed("", "sudo: a password is required", 1),
        *answers(state, current=current, more=f"old={OLD}\nwhy=unconfirmed\n"),
    ]
    machine = Scripted(answers={"begin": answers("activating"), " look ": looks})
    rollout, host_run, _ = rolled_out(machine)
    with pytest.raises(FleetError, match=rf"no answer: .*sudo: a password is required; unconfirmed; {words}"):
        activate(rollout, host_run, Target(NEW), BEFORE)


def test_why_nobody_could_ask_it_is_said_of_a_machine_that_takes_its_time_to_go_back() -> None:
    looks = [
        Completed("", "sudo: a password is required", 1),
        *answers("reverting", "reverting", "reverted", current=OLD, more=f"old={OLD}\nwhy=unconfirmed\n"),
    ]
    machine = Scripted(answers={"begin": answers("activating"), " look ": looks})
    rollout, host_run, _ = rolled_out(machine)
    with pytest.raises(FleetError, match=r"no answer: .*sudo: a password is required; unconfirmed; it went back to"):
        activate(rollout, host_run, Target(NEW), BEFORE)


def test_an_earlier_run_that_is_not_seen_to_end_is_in_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "is_of", lambda run, fleet: True)
    machine = Scripted(answers={" begin ": f"{answers('proving')[0]}busy=me@x\n", " say ": OSError("gone")})
    rollout, host_run, _ = rolled_out(machine)
    with pytest.raises(NotBegun, match="an earlier deployment is in its way, and was not seen to end: gone"):
        activate(rollout, host_run, Target(NEW), BEFORE)


@pytest.mark.parametrize(
    ("begun", "error", "kind"),
    [
        (answers("refused", more="inhibited=systemd: 1 → 2\n"), "cannot be switched to .* systemd: 1 → 2", NeedsBoot),
        (GONE, "it answers that it has not begun; deploy it again", NotBegun),
    ],
)
def test_a_beginning_that_is_none(begun: object, error: str, kind: type[Exception]) -> None:
    rollout, host_run, _ = rolled_out(Scripted(answers={"begin": begun}))
    with pytest.raises(kind, match=error):
        activate(rollout, host_run, Target(NEW), BEFORE)


DARK = f"{NEW}/specialisation/dark"


@pytest.mark.parametrize(
    ("goal", "current", "there", "end"),
    [
        (Goal.TEST, THIRD, f"{THIRD}\n", "deployed"),
        (Goal.SWITCH, THIRD, f"{THIRD}\n", "deployed"),
        (Goal.TEST, OLD, f"{THIRD}\n", "unknown"),
        (Goal.SWITCH, NEW, f"{THIRD}\n", "unknown"),
        (Goal.SWITCH, NEW, OSError("gone"), "unknown"),
        (Goal.SWITCH, NEW, FAILED, "unknown"),
    ],
)
def test_a_specialisation_is_kept_where_it_runs(goal: Goal, current: str, there: object, end: str) -> None:
    machine = Scripted(answers={" begin ": answers("kept", current=current), DARK: there})
    rollout, host_run, notes = rolled_out(machine, goal=goal, specialisation="dark")
    with pytest.raises(Undecided) if end == "unknown" else nullcontext():
        activate(rollout, host_run, Target(NEW), BEFORE)
    assert notes.end[0] == end


def test_a_specialisation_that_does_not_run_is_not_proven() -> None:
    looks = {" say ": answers("reverted", current=OLD), " look ": answers("proving", current=OLD)}
    machine = Scripted(answers={" begin ": answers("proving"), **looks, DARK: f"{THIRD}\n"})
    rollout, host_run, _ = rolled_out(machine, specialisation="dark")
    with pytest.raises(FleetError, match=f"system is {OLD}, not {THIRD}"):
        activate(rollout, host_run, Target(NEW), BEFORE)


def test_whatever_goes_wrong_in_the_proof_is_told_to_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*words: object, **more: object) -> None:
        raise UnicodeEncodeError("ascii", "ü", 0, 1, "ordinal not in range(128)")

    monkeypatch.setattr(module, "failing", failing)
    machine = Scripted(answers={" begin ": answers("proving"), " say ": answers("reverted", current=OLD)})
    machine.answers[" look "] = answers("proving")
    rollout, host_run, notes = rolled_out(machine)
    with pytest.raises(FleetError, match=r"it cannot be asked after the activation: .*UnicodeEncodeError"):
        activate(rollout, host_run, Target(NEW), BEFORE)
    assert notes.end[0] == "rolled back"
    assert any(" back " in script for script in machine.scripts)


def test_a_specialisation_that_nobody_can_be_asked_of_is_unknown() -> None:
    """A machine that takes forced commands alone, and a system that is not here."""
    machine = Scripted(access=Access.PUSH_CLOSURE, answers={" begin ": answers("kept", current=THIRD)})
    rollout, host_run, _ = rolled_out(machine, specialisation="dark")
    with pytest.raises(Undecided, match=f"it runs {THIRD}, and nobody says which system its specialisation is"):
        activate(rollout, host_run, Target(NEW), BEFORE)
    assert not any("readlink" in script for script in machine.scripts)


def test_a_fault_of_ours_at_the_word_is_kept_and_the_machine_asked() -> None:
    looks = [*answers("proving"), *answers("kept")]
    machine = Scripted(answers={" begin ": answers("proving"), " say ": KeyError("x"), " look ": looks})
    rollout, host_run, notes = rolled_out(machine)
    activate(rollout, host_run, Target(NEW), BEFORE)
    assert "KeyError: 'x'; this is a mistake in nixherd" in notes.found["fault"]
    assert notes.end == ("deployed", None)


def test_a_system_that_asks_for_a_password_where_the_old_one_did_not_gets_it() -> None:
    asks = Completed("", "sudo: a password is required\n", 1)
    machine = Scripted(has_password=True, answers={" begin ": [asks, *answers("kept")]})
    rollout, host_run, notes = rolled_out(machine)
    activate(rollout, host_run, Target(NEW), BEFORE)
    assert (machine.password, notes.end[0]) == ("secret", "deployed")


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ("protocol=3\nrefused=the revision is not noted: no space\n", "no space"),
        (OSError("gone"), f"whether it has noted revision {REVISION} is not known: gone; deploy it again"),
        (NotSent("no route"), "it was not told to note the revision: no route"),
    ],
)
def test_a_revision_that_is_not_seen_to_be_noted_fails_nothing(answer: object, why: str) -> None:
    machine = Scripted(answers={" begin ": answers("kept"), " note ": answer})
    rollout, host_run, notes = rolled_out(machine)
    activate(rollout, host_run, Target(NEW, revision=REVISION), BEFORE)
    assert (notes.end[0], notes.found["noted"], notes.found["unnoted"]) == ("deployed", None, why)


def test_why_no_look_was_answered_is_said_where_the_machine_is_not_there_any_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A new system whose sudo asks for a password goes down then, say: the first reason is the one to mend."""
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    asks = Completed("", "sudo: a password is required\n", 1)
    machine = Scripted(answers={" begin ": answers("activating"), " look ": asks})
    gone = DeadlineExceeded("dev: not within 3 s")
    connect, tries = machine.reconnect, []

    def reconnect(*args: Any, **options: Any) -> str:
        tries.append(options)
        if len(tries) > 2:
            raise gone
        return connect(*args, **options)

    machine.reconnect = reconnect  # type: ignore[method-assign]
    rollout, host_run, notes = rolled_out(machine)
    with pytest.raises(Undecided, match=r"not within 3 s; before that: .*a password is required"):
        activate(rollout, host_run, Target(NEW), BEFORE)
    assert notes.end[0] == "unknown"
