"""One machine's activation, seen from here: begun, followed to its proof, and ended by our word or by the machine's."""

import time
from dataclasses import replace

from pyinfra.api.host import Host

from facts.nixos import Running, SystemState
from nixherd.deploy.goal import Goal
from nixherd.deploy.journal import is_of
from nixherd.deploy.protocol import Deployment, Kind, Stage, Standing, parse
from nixherd.deploy.report import Outcome, how_to_ask
from nixherd.deploy.run import DeployRun, HostRun
from nixherd.errors import FAILURES, DeadlineExceeded, FleetError, NeedsBoot, NotBegun, Refused, Undecided, Unforeseen
from nixherd.faults import foreseen, worded
from nixherd.locate.reach import Epoch
from operations.health import failing
from operations.rebooting import may_reboot, reboot_and_prove
from operations.speaking import Wanted, deployment_of, note_too, said
from operations.steps import connector_of, fleet_host, session_of

REVERT = 60  # seconds beyond its deadlines within which a machine has gone back, and answers again
MARGIN = 5  # seconds before the machine's patience ends, in which our word has to arrive
BY_BOOT = "-boot"  # after the run's id, where it goes on by a boot
PAUSE = 5.0  # seconds between two looks at a system that is watched


def activate(host: Host, run: DeployRun, own: HostRun, wanted: Wanted) -> None:
    """From the start to the proven end. FleetError when that is not the new system, Undecided when nobody knows."""
    options = own.options
    deployment = deployment_of(host, run, own, wanted)
    try:
        if own.inhibited and options.goal.activates and not options.no_check:
            raise NeedsBoot(f"{own.id}: it cannot be switched to while the old system runs: {'; '.join(own.inhibited)}")
        _Follower(host, own, wanted, deployment).follow()
    except NeedsBoot as error:
        if not (options.reboot and options.goal is Goal.SWITCH):
            why = f"{error}; nothing was changed: deploy it with --reboot, or with goal=boot (or say no_check=true)"
            own.end(Outcome.NEEDS_BOOT, why.removeprefix(f"{own.id}: "))
            raise NeedsBoot(why) from None
        host.log(f"{error}; so it boots into it")
        to_boot = replace(deployment, id=f"{run.id}{BY_BOOT}", goal=Goal.BOOT, specialisation=None)
        _Follower(host, own, wanted, to_boot).follow()


class _Follower:
    """One activation under way; `standing` is the last that the machine said of it."""

    def __init__(self, host: Host, own: HostRun, wanted: Wanted, deployment: Deployment) -> None:
        self.host, self.own, self.wanted, self.deployment = host, own, wanted, deployment
        self.until = time.monotonic() + deployment.deadline + deployment.confirm + REVERT
        self.standing = Standing(Stage.NONE)
        self.problem: str | None = None
        self.why: str | None = None

    def follow(self) -> None:
        self.own.enter("activate")
        self.standing = self._begin()
        self._wait_while(Stage.ARMED, Stage.ACTIVATING)
        if self.standing.stage is Stage.PROVING:
            self.own.enter("prove")
            problem = self.problem = self._disproved()
            self.own.enter("roll back" if problem else "keep")
            self._say(self.deployment.back(problem) if problem else self.deployment.keep)
        self._wait_while(*(stage for stage in Stage if not stage.is_end))
        self._judge()

    def _begin(self) -> Standing:
        standing = self._begun()
        ours = standing.id and is_of(standing.id.removesuffix(BY_BOOT), session_of(self.host).fleet.path)
        if standing.busy and ours:
            self._end_our_own(standing)
            standing = self._begun()
        if standing.busy:
            raise NotBegun(
                f"{self.own.id}: {standing.busy} is deploying to it (it is {standing.stage}); nothing was done, "
                "wait for its end"
            )
        if standing.stage is Stage.REFUSED:
            raise self._refused(standing)
        before = self.own.state["profile"] if self.own.state else None
        if self.own.kind is Kind.SYSTEM and before and standing.was not in (None, before):
            self._tell_moved(f"its profile was moved from {before} to {standing.was} before this began")
        return standing

    def _begun(self) -> Standing:
        """What it says when it is told to begin; where no answer comes, what it says when it is reached again."""
        command, program = self.deployment.begin
        try:
            return parse(self._ask(command, stdin=program, what="beginning the deployment"))
        except OSError as error:
            self._tell(f"not reached: {error}")
            connector_of(self.host).drop()
        standing = self._look(Stage.NONE)
        if standing.stage is Stage.NONE:
            raise NotBegun(f"{self.own.id}: it was told to begin, did not answer, and did not begin; deploy it again")
        return standing

    def _refused(self, now: Standing) -> NotBegun:
        if now.inhibited:
            return NeedsBoot(f"{self.own.id}: it cannot be switched to while the old system runs: {now.inhibited}")
        why = (now.why or "it says no").removesuffix("; nothing was changed")
        return NotBegun(f"{self.own.id}: {why}; nothing was changed")

    def _tell_moved(self, text: str) -> None:
        """Somebody else has let the profile lead elsewhere meanwhile."""
        self.own.found(profile_moved=text)
        self._tell(text)

    def _end_our_own(self, standing: Standing) -> None:
        """Have the machine end what an earlier run from here began, which is dead: this one holds the fleet's lock."""
        self._tell(f"an earlier run was killed while it deployed here (it is {standing.stage}); that is ended first")
        old = replace(self.deployment, id=str(standing.id))
        standing = parse(self._ask(old.back("its run was killed, and another one begins"), what="ending it"))
        while not standing.stage.is_end and time.monotonic() < self.until:
            standing = parse(self._ask(old.look(standing.stage), what="looking at its end"))

    def _ask(self, script: str, *, stdin: str | None = None, what: str) -> str:
        return said(self.host, self.own, script, stdin=stdin, what=what)

    # Waiting

    def _wait_while(self, *stages: Stage) -> None:
        """Until the machine is in another stage than these. Undecided when nobody can ask it in time."""
        told = ""
        while self.standing.stage in stages:
            if self.standing.waits and self.standing.waits != told:
                told = self.standing.waits
                self._tell(f"waits for {told}")
            self.why = self.standing.why or self.why
            self.standing = self._look(self.standing.stage)

    def _look(self, known: Stage) -> Standing:
        """How it stands, asked until there is an answer. Undecided when there is none within all deadlines."""
        while True:
            left = self.until - time.monotonic()
            if left <= 0:
                raise self._undecided(f"it was not heard of for {self.deployment.deadline + self.deployment.confirm} s")
            try:
                connector_of(self.host).reach(left, epochs=(Epoch.FINAL,), absent_ok=True)
                return parse(self._ask(self.deployment.look(known), what="looking at the deployment"))
            except DeadlineExceeded as error:
                raise self._undecided(str(error)) from None
            except FAILURES as error:
                foreseen(error, f"{self.own.id}: looking at its deployment")
                self._tell(f"not reached: {error}")
                connector_of(self.host).drop()
                time.sleep(min(1.0, max(0.0, left)))

    def _say(self, word: str) -> None:
        try:
            self.standing = parse(self._ask(word, what="the word"))
        except FAILURES as error:  # then the machine decides by itself, and is asked what it decided
            failure = worded(error, f"{self.own.id}: telling it to {self.own.stage}")
            if isinstance(failure, Unforeseen):
                self.own.found(fault=str(failure))
                self.problem = self.problem or str(failure)
            else:
                self._tell(f"not reached: {failure}")
            connector_of(self.host).drop()

    def _tell(self, text: str) -> None:
        self.host.log(text)
        self.own.said(text)

    # Proving

    def _disproved(self) -> str | None:
        """Why the new system is not what it is to be, None when it is, for as long as it is watched.

        Everything is asked on a connection of its own: that of before says nothing about the way in.
        """
        connector = connector_of(self.host)
        began, patience = time.monotonic(), self.standing.left or self.deployment.confirm
        while True:
            left = patience - MARGIN - (time.monotonic() - began)
            connector.drop()
            try:
                connector.reach(max(1.0, left), epochs=(Epoch.FINAL,))
                self.standing = parse(self._ask(self.deployment.look(Stage.NONE, 0), what="the proof"))
            except FAILURES as error:
                return f"it cannot be asked after the activation: {worded(error, 'proving it')}"
            problem = self._disagreement() or failing(
                self.host, self.own.checks, began + patience - MARGIN, by_root=self.own.kind is Kind.SYSTEM
            )
            watched = time.monotonic() - began
            if problem or watched >= self.own.options.soak:
                return problem
            time.sleep(min(PAUSE, self.own.options.soak - watched))

    def _disagreement(self) -> str | None:
        now, wanted = self.standing, self.wanted
        compared = {"hostname": (now.hostname, wanted.hostname)}
        if not self.deployment.specialisation:
            compared["system"] = (now.current, wanted.system)
        wrong = [f"{what} is {is_}, not {want}" for what, (is_, want) in compared.items() if want and is_ != want]
        if now.failed:
            wrong.append(f"units failed: {now.failed}")
        return "; ".join(wrong) or None

    # Judging

    def _judge(self) -> None:
        now, own = self.standing, self.own
        own.found(current=now.current, profile=now.profile, log=now.log)
        if now.aside:
            own.found(aside=now.aside.split(", "))
            self._tell(f"these fail too, which decides nothing: {now.aside}")
        if now.moved:
            self._tell_moved(f"its profile was moved to {now.moved} by somebody else meanwhile")
        if now.stage is Stage.REVERTED and now.was and now.profile not in (None, now.was):
            self._tell_moved(f"its profile was moved from {now.was} to {now.profile} by somebody else meanwhile")
        if now.stage is Stage.KEPT:
            self._require_kept()
            note_too(self.host, own, self.deployment, now)
            left = self._boot() if self._boots_now() else None
            pending = left or (self.deployment.goal is Goal.BOOT and not self._boots_now())
            outcome = Outcome.PENDING_REBOOT if pending else Outcome.DEPLOYED
            own.end(outcome, left)
            self.host.log(f"{outcome}: {left or now.current}")
            return
        if now.stage is Stage.NONE:
            self._judge_after_reboot()
            return
        if now.stage is Stage.REVERTED:
            unheard = f"{self.problem}; " if self.problem and self.problem != now.why else ""
            why = f"{unheard}{now.why}; it went back to {now.old}"
            own.end(Outcome.ROLLED_BACK, why)
            raise FleetError(f"{own.id}: {why}{self._last_words()}")
        if now.stage is Stage.REFUSED:
            raise self._refused(now)
        if now.stage is Stage.STUCK:
            raise self._stuck()
        raise self._undecided(f"{now.why or 'its process is gone'}; it runs {now.current}, not {now.old}")

    def _boot(self) -> str | None:
        """Boot into the new system; why that is left to the machine's owner, where it is."""
        try:
            reboot_and_prove(self.host, self.own, self.deployment.system)
        except Refused as error:
            return str(error)
        return None

    def _stuck(self) -> Undecided:
        """It can neither keep nor go back, and is not ours to reboot; it goes on trying."""
        now = self.standing
        own, host = self.own, fleet_host(self.host)
        boot = may_reboot(self.host) or f"`ssh {host.ssh_alias or host.id} sudo systemctl reboot`"
        why = (
            f"{now.why}; it is stuck on {now.current}, since going back fails ({now.stuck or 'nobody knows why'}), and "
            f"goes on trying; mend that there, or reboot it, which brings {now.was or now.old}: {boot}; "
            f"see {how_to_ask(own.id)}"
        )
        own.end(Outcome.UNKNOWN, why)
        return Undecided(f"{own.id}: {why}")

    def _boots_now(self) -> bool:
        if not self.own.options.reboot:
            return False
        goal = self.deployment.goal
        return goal is Goal.BOOT or (goal is Goal.SWITCH and bool(self.own.reboot))

    def _judge_after_reboot(self) -> None:
        """A boot has made the machine forget the deployment; it brings what `keep` kept last."""
        before = self.own.state
        state: SystemState | None = self.host.get_fact(Running, _ignore_errors=True)
        if self.own.kind is Kind.HOME:
            raise self._undecided("it has rebooted or lost its notes meanwhile")
        if state is None or before is None or state["boot_id"] == before["boot_id"]:
            raise self._undecided("it has no notes of this deployment any more")
        self.own.found(current=state["current"], profile=state["profile"])
        if state["current"] != before["profile"]:
            raise self._undecided(f"it has rebooted meanwhile and runs {state['current']}")
        heard = f"{self.why}; " if self.why else ""
        why = f"{heard}it rebooted in the middle of the activation and runs {state['current']}, as before"
        self.own.end(Outcome.ROLLED_BACK, why)
        raise FleetError(f"{self.own.id}: {why}")

    def _require_kept(self) -> None:
        """Undecided unless what the machine says it kept is there."""
        now, goal = self.standing, self.deployment.goal
        if goal.makes_generation and now.profile != self.deployment.system:
            raise self._undecided(f"its profile leads to {now.profile}")
        if goal.activates and not self.deployment.specialisation and now.current != self.deployment.system:
            raise self._undecided(f"it runs {now.current}")

    def _last_words(self) -> str:
        words = [line.strip() for line in self.standing.log if line.strip()][-3:]
        return f" (last: {' / '.join(words)})" if words else ""

    def _undecided(self, why: str) -> Undecided:
        text = (
            f"{self.own.id}: {why.removeprefix(f'{self.own.id}: ')}; see {how_to_ask(self.own.id)}; "
            "a reboot brings what ran before unless the new one was kept"
        )
        self.own.end(Outcome.UNKNOWN, text)
        return Undecided(text)
