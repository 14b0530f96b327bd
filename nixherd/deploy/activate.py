"""One machine's activation, seen from here: begun, followed to its proof, and ended by our word or the machine's."""

import time
from dataclasses import dataclass, field, replace
from functools import partial

from nixherd.base.errors import (
    FAILURES,
    DeadlineExceeded,
    FleetError,
    NeedsBoot,
    NotBegun,
    NotSent,
    Refused,
    Undecided,
    Unforeseen,
)
from nixherd.base.reasons import reason, went_back
from nixherd.base.terminal import foreseen, worded
from nixherd.base.waiting import Backoff, poll
from nixherd.deploy.health import failing
from nixherd.deploy.home_files import tell_backed_up, why_refused
from nixherd.deploy.options import Goal
from nixherd.deploy.plan import checks_of, resolved
from nixherd.deploy.program import ask_program, busy, deployment_of, note_too
from nixherd.deploy.protocol import Deployment, Kind, Stage, Standing, Unclear
from nixherd.deploy.reboot import reboot_and_prove, why_not_rebootable
from nixherd.deploy.report import Outcome, is_of
from nixherd.deploy.rollout import Built, Changes, HostRun, Rollout, Target
from nixherd.deploy.running import NOT_NOW, Running, require_root, specialised, try_running
from nixherd.fleet.health_checks import Check
from nixherd.fleet.models import Access

BEGINNING = 30.0  # seconds after which a deployment of which no answer came has begun, or never will
REVERT = 60  # seconds beyond its deadlines within which a machine has gone back, and answers again
MARGIN = 5  # seconds before the machine's patience ends, in which our word has to arrive
BY_BOOT = "-boot"  # after the rollout's id, where it goes on by a boot
PAUSE = 5.0  # seconds between two looks at a system that is watched


def activate(
    rollout: Rollout, host_run: HostRun, target: Target, running: Running, *, built: Built | None = None
) -> None:
    """Activate a system that the machine has, from the start to the proven end.

    `running` is what runs before; `built` is known of a system of the fleet, and says which checks it has to pass: that
    is activated in the host's turn. FleetError when the end is not the new system, Undecided when nobody knows.
    """
    options = host_run.options
    changes, checks = (built.changes, built.planned.checks) if built else (Changes(), ())
    at_boot = checks_of(host_run, built.planned.config, None) if built else ()  # a boot brings the base system
    with rollout.turn(host_run) if built else host_run.reporting():
        if host_run.kind is Kind.SYSTEM:
            require_root(host_run.machine, running)
        deployment = deployment_of(rollout, host_run, target, running)
        try:
            if changes.inhibitors and options.goal.activates and not options.no_check:
                raise _needs_boot(host_run, "; ".join(changes.inhibitors))
            activation = _Activation(host_run, target, running, deployment, checks, at_boot, changes)
            activation.begin()
            activation.follow()
        except NeedsBoot as error:
            if not (options.reboot and options.goal is Goal.SWITCH):
                why = f"{error}; nothing was changed: deploy it with --reboot, or with goal=boot (or say no_check=true)"
                host_run.end(Outcome.NEEDS_BOOT, why.removeprefix(f"{host_run.id}: "))
                raise NeedsBoot(why) from None
            host_run.machine.say(f"{error}; so it boots into it")
            by_boot = replace(deployment, id=f"{rollout.id}{BY_BOOT}", goal=Goal.BOOT, specialisation=None)
            activation = _Activation(host_run, target, running, by_boot, at_boot, at_boot, changes)
            activation.begin()
            activation.follow()


def _needs_boot(host_run: HostRun, why: str) -> NeedsBoot:
    return NeedsBoot(f"{host_run.id}: it cannot be switched to while the old system runs: {why}")


@dataclass
class _Activation:
    """One activation under way; `standing` is the last that the machine said of it."""

    host_run: HostRun
    target: Target
    before: Running
    deployment: Deployment
    checks: tuple[Check, ...]
    at_boot: tuple[Check, ...]
    changes: Changes
    standing: Standing = field(default_factory=lambda: Standing(Stage.NONE))
    problem: str | None = None
    why: str | None = None
    unheard: str = ""

    def __post_init__(self) -> None:
        self.machine = self.host_run.machine
        self.ask = partial(ask_program, self.machine, self.host_run.kind)
        self.until = time.monotonic() + self.deployment.deadline + self.deployment.confirm + REVERT

    def begin(self, *, is_second: bool = False) -> None:
        """Tell the machine to begin. NotBegun where it does not."""
        self.host_run.enter("activate")
        command, program = self.deployment.begin
        try:
            standing = self.ask(command, stdin=program, what="beginning the deployment")
        except NotSent as error:
            raise NotBegun(f"{self.host_run.id}: it was not told to begin: {error}") from error
        except (OSError, Unclear) as error:
            self._say_lost(error)
            standing = self._look_for_beginning(error)
        if standing.stage is Stage.NONE:
            raise NotBegun(f"{self.host_run.id}: it answers that it has not begun; deploy it again")
        if standing.busy and standing.id and not is_second and is_of(standing.id, self.host_run.fleet_path):
            self._end_earlier_run(standing)
            self.begin(is_second=True)
            return
        if standing.busy:
            raise busy(self.host_run.id, standing)
        if standing.stage is Stage.REFUSED:
            raise self._refusal(standing)
        before = self.before.profile
        if self.host_run.kind is Kind.SYSTEM and before and standing.was not in (None, before):
            self._say_moved(f"its profile was moved from {before} to {standing.was} before this began")
        self.standing = standing

    def follow(self) -> None:
        """Wait for the activation, prove it, send the word, and judge the end."""
        self._wait_while(Stage.ARMED, Stage.ACTIVATING)
        if self.standing.stage is Stage.PROVING:
            self.host_run.enter("prove")
            problem = self.problem = self._disproved()
            self.host_run.enter("roll back" if problem else "keep")
            self._send_word(self.deployment.back(problem) if problem else self.deployment.keep)
        self._wait_while(*(stage for stage in Stage if not stage.is_end))
        self._judge()

    def _refusal(self, standing: Standing) -> NotBegun:
        if standing.held:
            return self.host_run.held(NOT_NOW.format(standing.held))
        if standing.inhibited:
            return _needs_boot(self.host_run, standing.inhibited)
        return NotBegun(f"{self.host_run.id}: {why_refused(standing, self.deployment.backup)}; nothing was changed")

    def _say_moved(self, text: str) -> None:
        """Somebody else has let the profile lead elsewhere meanwhile."""
        self.host_run.note(profile_moved=text)
        self.host_run.say(text)

    def _end_earlier_run(self, standing: Standing) -> None:
        """Have the machine end what an earlier run from here began, which is dead: this one holds the fleet's lock.

        NotBegun when it does not say that it does.
        """
        self.host_run.say(f"an earlier run was killed while it deployed here ({standing.stage}); that is ended first")
        old = replace(self.deployment, id=str(standing.id))
        try:
            standing = self.ask(old.back("its run was killed, and another one begins"), what="ending it")
            while not standing.stage.is_end and time.monotonic() < self.until:
                standing = self.ask(old.look(standing.stage), what="looking at its end")
        except (OSError, Unclear) as error:
            why = f"an earlier deployment is in its way, and was not seen to end: {error}; deploy it again"
            raise NotBegun(f"{self.host_run.id}: {why}") from error

    # Waiting

    def _wait_while(self, *stages: Stage) -> None:
        """Wait until the machine is in another stage than these. Undecided when nobody can ask it in time."""
        last = ""
        while self.standing.stage in stages:
            if self.standing.waits and self.standing.waits != last:
                last = self.standing.waits
                self.host_run.say(f"waits for {last}")
            self.why = self.standing.why or self.why
            if time.monotonic() >= self.until:
                raise self._undecided(f"it was still {self.standing.stage} when its deadlines were over")
            self.standing = self._look(self.standing.stage)

    def _say_lost(self, error: object) -> None:
        self.host_run.say(f"no answer: {error}")

    def _look_for_beginning(self, error: Exception) -> Standing:
        """Return how it stands once it has begun.

        NotBegun when it does not while it may still be about to, and is as it was: a boot forgets what has begun.
        """
        lost: Exception | None = error
        for _ in poll(BEGINNING, Backoff(1.0, 1.0)):
            standing = self._look(Stage.NONE, lost)
            lost = None
            if standing.stage is not Stage.NONE:
                return standing
        self._require_as_before()
        why = str(worded(error, "beginning the deployment")).removeprefix(f"{self.host_run.id}: ")
        raise NotBegun(f"{self.host_run.id}: {why}; it has not begun {BEGINNING:g} s later; deploy it again") from error

    def _require_as_before(self) -> None:
        """FleetError, or Undecided, unless the machine that has no notes of this deployment is seen to be as it was."""
        before, running = self.before, try_running(self.machine, self.host_run.kind)
        if isinstance(running, FleetError):
            raise self._undecided(f"it cannot be asked what it runs now: {running}")
        if running.boot_id != before.boot_id:
            self._judge_after_reboot()
        if (running.current, running.profile) != (before.current, before.profile):
            now = f"runs {running.current} and boots {running.profile}"
            raise self._undecided(f"it has no notes of this deployment, and {now} now, not {before.current}")

    def _look(self, known: Stage, lost: Exception | None = None) -> Standing:
        """Ask how it stands until there is an answer. Undecided when there is none within all deadlines.

        `lost` is what the last question came to; then the connection is made anew.
        """
        first, is_lost = lost, lost is not None
        for _ in (waits := poll(self.until - time.monotonic(), Backoff(1.0, 1.0))):
            if not waits.left:
                break
            try:
                self.machine.reconnect(waits.left, if_lost=not is_lost, absent_ok=True)
                is_lost = False
                standing = self.ask(self.deployment.look(known), what="looking at the deployment")
                if first or known is not Stage.REVERTING:  # why it goes back is why it was not heard before
                    self.unheard = f"no answer: {first}; ".replace(f"{self.host_run.id}: ", "") if first else ""
                return standing
            except DeadlineExceeded as error:
                raise self._undecided(f"{error}{f'; before that: {first}' if first else ''}") from None
            except FAILURES as error:
                foreseen(error, f"{self.host_run.id}: looking at its deployment")
                self._say_lost(error)
                first, is_lost = first or error, True
        seconds = self.deployment.deadline + self.deployment.confirm
        raise self._undecided(f"it has not said how it stands for {seconds} s{f' ({first})' if first else ''}")

    def _send_word(self, word: str) -> None:
        try:
            self.standing = self.ask(word, what="the word")
        except FAILURES as error:  # then the machine decides by itself, and is asked what it decided
            failure = worded(error, f"{self.host_run.id}: telling it to {self.host_run.stage}")
            if isinstance(failure, Unforeseen):
                self.host_run.note(fault=str(failure))
                self.problem = self.problem or str(failure)
            else:
                self._say_lost(failure)
            self.standing = self._look(self.standing.stage, failure)

    # Proving

    def _disproved(self) -> str | None:
        """Why the new system is not as intended, None when it is, for as long as it is watched.

        Everything is asked on a connection of its own: that of before says nothing about the way in.
        """
        patience = (self.standing.left or self.deployment.confirm) - MARGIN
        until, by_root = time.monotonic() + patience, self.host_run.kind is Kind.SYSTEM
        for _ in poll(self.host_run.options.soak, Backoff(PAUSE, PAUSE)):
            try:
                self.machine.reconnect(max(1.0, until - time.monotonic()))
                self.standing = self.ask(self.deployment.look(Stage.NONE, 0), what="the proof")
                problem = self._disagreement() or failing(self.machine, self.checks, until, by_root=by_root)
            except FAILURES as error:
                return f"it cannot be asked after the activation: {worded(error, 'proving it')}"
            if problem:
                return problem
        return None

    def _disagreement(self) -> str | None:
        standing, target = self.standing, self.target
        compared = {"hostname": (standing.hostname, target.hostname), "system": (standing.current, self._due())}
        wrong = [f"{what} is {has}, not {due}" for what, (has, due) in compared.items() if due and has != due]
        if standing.failed:
            wrong.append(f"units failed: {standing.failed}")
        return "; ".join(wrong) or None

    def _due(self) -> str | None:
        """The system that is to run; None where nobody says which one its specialisation is."""
        system, chosen = self.target.system, self.deployment.specialisation
        if chosen and self.machine.access is Access.SHELL:
            return specialised(self.machine, system, chosen)
        return resolved(f"{system}/specialisation/{chosen}") if chosen else system

    # Judging

    def _judge(self) -> None:
        standing, host_run = self.standing, self.host_run
        host_run.note(current=standing.current, profile=standing.profile, log=standing.log)
        if standing.aside:
            host_run.note(aside=standing.aside.split(", "))
            host_run.say(f"these fail too, which decides nothing: {standing.aside}")
        tell_backed_up(host_run, standing)
        moved = f"to {standing.moved}" if standing.moved else ""
        if standing.stage is Stage.REVERTED and standing.was and standing.profile not in (None, standing.was):
            moved = f"from {standing.was} to {standing.profile}"
        if moved:
            self._say_moved(f"its profile was moved {moved} by somebody else meanwhile")
        match standing.stage:
            case Stage.KEPT:
                self._judge_kept()
            case Stage.NONE:
                self._judge_after_reboot()
            case Stage.REVERTED | Stage.REFUSED if standing.old and standing.current != standing.old:
                why = f"it says {standing.stage}, and runs {standing.current}, not {standing.old} as before"
                raise self._undecided(f"{self._cause}{why}")
            case Stage.REVERTED:
                why = f"{self._cause}{went_back(standing.why, standing.old, standing.log)}"
                host_run.end(Outcome.ROLLED_BACK, why)
                raise FleetError(f"{host_run.id}: {why}")
            case Stage.REFUSED:
                raise self._refusal(standing)
            case Stage.STUCK:
                raise self._stuck()
            case _:
                why = standing.why or "its process is gone"
                why = f"{self._cause}{why}; it runs {standing.current}, and ran {standing.old} before"
                raise self._undecided(why)

    @property
    def _cause(self) -> str:
        """What the machine's own reason may follow from: what it was told to go back for, or why nobody heard it."""
        if self.problem:
            return f"{self.problem}; " if self.problem != self.standing.why else ""
        return self.unheard

    def _judge_kept(self) -> None:
        self._require_kept()
        note_too(self.host_run, self.deployment, self.standing)
        left, current = self._boot() if self._boots_now() else (None, self.standing.current)
        if left or (self.deployment.goal is Goal.BOOT and not self._boots_now()):
            self.host_run.end(Outcome.PENDING_REBOOT, left)
            self.machine.say(f"{Outcome.PENDING_REBOOT}: {left or f'its next boot brings {self.standing.profile}'}")
        else:
            self.host_run.end(Outcome.DEPLOYED)
            self.machine.say(f"{Outcome.DEPLOYED}: {current}")

    def _boot(self) -> tuple[str | None, str | None]:
        """Boot into the new system. Return why that is left to the machine's owner, where it is, and what runs then."""
        try:
            running = reboot_and_prove(self.host_run, self.before, self.deployment.system, self.at_boot)
        except Refused as error:
            return str(error), self.standing.current
        except NotBegun as error:  # the system is kept all the same
            raise FleetError(f"{error}; its next boot brings {self.standing.profile}") from error
        return None, running.current

    def _stuck(self) -> Undecided:
        """It can neither keep nor go back, and is not ours to reboot; it goes on trying."""
        standing, host_run = self.standing, self.host_run
        obstacle, cause = standing.stuck or "nobody knows why", reason(standing.log, "")
        if cause and cause not in obstacle:  # the machine tells the last line, which only follows from it
            obstacle = f"{cause}; {obstacle}"
        boot = why_not_rebootable(host_run) or host_run.host.how_to_reboot
        why = (
            f"{self._cause}{standing.why}; it is stuck on {standing.current}, since going back fails "
            f"({obstacle}), and goes on trying; mend that there, or reboot it, which "
            f"brings {standing.was or standing.old}: {boot}; see {host_run.how_to_ask}"
        )
        host_run.end(Outcome.UNKNOWN, why)
        return Undecided(f"{host_run.id}: {why}")

    def _boots_now(self) -> bool:
        if not self.host_run.options.reboot:
            return False
        goal = self.deployment.goal
        return goal is Goal.BOOT or (goal is Goal.SWITCH and bool(self.changes.reboot_for))

    def _judge_after_reboot(self) -> None:
        """A boot has made the machine forget the deployment; it brings what `keep` kept last."""
        if self.host_run.kind is Kind.HOME:
            raise self._undecided("it has rebooted or lost its notes meanwhile")
        running = try_running(self.machine, self.host_run.kind)
        if isinstance(running, FleetError) or running.boot_id == self.before.boot_id:
            why = f" ({running})" if isinstance(running, FleetError) else ""
            raise self._undecided(f"it has no notes of this deployment any more{why}")
        self.host_run.note(current=running.current, profile=running.profile)
        if running.current != self.before.profile:
            raise self._undecided(f"it has rebooted meanwhile and runs {running.current}")
        heard = f"{self.why}; " if self.why else ""
        why = f"{heard}it rebooted in the middle of the activation and runs {running.current}, as before"
        self.host_run.end(Outcome.ROLLED_BACK, why)
        raise FleetError(f"{self.host_run.id}: {why}")

    def _require_kept(self) -> None:
        """Undecided unless what the machine says it kept is there."""
        standing, goal = self.standing, self.deployment.goal
        if goal.makes_generation and standing.profile != self.deployment.system:
            raise self._undecided(f"its profile leads to {standing.profile}")
        if not goal.activates:
            return
        try:
            due = self._due()
        except (OSError, Unclear) as error:
            foreseen(error, f"{self.host_run.id}: asking which system runs")
            raise self._undecided(f"it runs {standing.current}, and does not say what that is: {error}") from error
        if standing.current != due:
            unknown = "" if due else ", and nobody says which system its specialisation is"
            raise self._undecided(f"it runs {standing.current}{unknown}")

    def _undecided(self, why: str) -> Undecided:
        text = (
            f"{self.host_run.id}: {why.removeprefix(f'{self.host_run.id}: ')}; see {self.host_run.how_to_ask}; "
            "a reboot brings what ran before unless the new one was kept"
        )
        self.host_run.end(Outcome.UNKNOWN, text)
        return Undecided(text)
