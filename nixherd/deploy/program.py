"""What the program that deploys on a machine is asked, and which revision it notes of what the machine has."""

from nixherd.deploy.machine import Machine
from nixherd.deploy.protocol import PROTOCOL, Deployment, Kind, Stage, Standing, parse
from nixherd.deploy.reboot import why_not_rebootable
from nixherd.deploy.report import Outcome
from nixherd.deploy.run import HostRun, Rollout
from nixherd.deploy.running import Running, require_root
from nixherd.deploy.values import Planned, Target
from nixherd.errors import FAILURES, FleetError, NotBegun
from nixherd.faults import worded
from nixherd.fleet.models import Access
from nixherd.fleet.revisions import is_revision, shown
from nixherd.reasons import failure


def deployment_of(rollout: Rollout, host_run: HostRun, target: Target, running: Running) -> Deployment:
    """What the machine's program is told of a deployment."""
    options, is_system = host_run.options, host_run.kind is Kind.SYSTEM
    return Deployment(
        *(rollout.id, rollout.who, options.goal, target.system, options.specialisation),
        *(options.activation_deadline, options.confirm_deadline, host_run.kind, target.generation),
        gated=host_run.machine.access is Access.PUSH_CLOSURE,
        reboot=is_system and why_not_rebootable(host_run) is None,
        unchecked=is_system and options.no_check,
        protocol=running.protocol,
        revision=target.revision,
    )


def ask_program(machine: Machine, kind: Kind, script: str, *, stdin: str | None = None, what: str) -> Standing:
    """The program's answer. FleetError when it does not give one."""
    if machine.access is Access.PUSH_CLOSURE:
        done = machine.run_forced(script)
    else:
        is_root = kind is Kind.SYSTEM
        done = machine.run(script, stdin=stdin, sudo=is_root)
        # the new system may ask for a password where the old one did not
        if done.status != 0 and is_root and "password is required" in done.stderr and machine.give_password():
            done = machine.run(script, stdin=stdin, sudo=is_root)
    if done.status != 0:
        raise failure(f"{machine.id}: {what} failed", done.stderr.strip() or done.stdout)
    return parse(done.stdout)


def _note(machine: Machine, deployment: Deployment) -> Standing:
    """Have the machine note the revision of what it has already, and read it back. FleetError when it is not noted."""
    command, program = deployment.note
    standing = ask_program(machine, deployment.kind, command, stdin=program, what="noting the revision")
    if standing.busy:
        raise NotBegun(
            f"{machine.id}: {standing.busy} is deploying to it (it is {standing.stage}); nothing was done, wait for "
            "its end"
        )
    if standing.stage is Stage.REFUSED:
        raise NotBegun(f"{machine.id}: {standing.why or 'it says no'}")
    if standing.kept_revision != deployment.revision:
        raise FleetError(
            f"{machine.id}: it was told to note revision {deployment.revision}, and notes {standing.kept_revision}"
        )
    return standing


def note_alone(rollout: Rollout, host_run: HostRun, planned: Planned) -> None:
    """Deploy another revision of the system that runs: it is noted; no activation, no generation."""
    with rollout.turn(host_run, host_run.options.role or host_run.id):
        _note_alone(rollout, host_run, planned)


def _note_alone(rollout: Rollout, host_run: HostRun, planned: Planned) -> None:
    running = planned.reached.running
    require_root(host_run.machine, running)
    deployment = deployment_of(rollout, host_run, Target.of(planned.config), running)
    if not deployment.notes:
        why = "its program is of the version before, which notes no revision: deploy what has nixherd's modules anew"
        host_run.end(Outcome.UNCHANGED, why)
        return
    host_run.enter("note")
    standing = _note(host_run.machine, deployment)
    host_run.note(noted=standing.kept_revision, current=standing.current, profile=standing.profile)
    host_run.end(Outcome.REVISION_ONLY, f"{shown(running.revision)} → {shown(standing.kept_revision)}")


def note_too(host_run: HostRun, deployment: Deployment, kept: Standing | None = None) -> None:
    """Say which revision the machine notes of what was kept, read back; that it cannot note it fails nothing.

    `kept` is what it said of its deployment; what was kept by something else, or by a program that knew of no
    revision, is noted now.
    """
    noted, why = kept.kept_revision if kept else None, kept.unnoted if kept else None
    revision = deployment.revision
    if revision is None or not is_revision(revision):
        host_run.note(noted=noted)
        return
    try:
        if noted != revision and why is None and (kept is None or kept.protocol == PROTOCOL):
            noted = _note(host_run.machine, deployment).kept_revision
    except FAILURES as error:
        why = str(worded(error, f"{host_run.id}: noting the revision")).removeprefix(f"{host_run.id}: ")
    host_run.note(noted=noted)
    if noted != revision:
        why = (why or "the machine's program notes none").removeprefix("the revision is not noted: ")
        host_run.note(unnoted=why)
        host_run.say(f"revision not noted: {why}")
