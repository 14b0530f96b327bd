"""The machine's own program: what it is asked, what it is told to deploy or pull, and which revision it notes."""

from nixherd.base.becoming_root import REFUSED
from nixherd.base.errors import FAILURES, FleetError, NotBegun, NotSent, Undecided
from nixherd.base.process import Completed
from nixherd.base.reasons import failure
from nixherd.base.terminal import worded
from nixherd.deploy.machine import Machine
from nixherd.deploy.operators import operator
from nixherd.deploy.protocol import PROTOCOL, Deployment, Kind, Stage, Standing, Unclear, parse
from nixherd.deploy.reboot import why_not_rebootable
from nixherd.deploy.report import Outcome
from nixherd.deploy.rollout import HostRun, Planned, PlannedToPull, Rollout, Target
from nixherd.deploy.running import Running, require_root
from nixherd.fleet.models import Access
from nixherd.fleet.revisions import is_revision, noted_of, shown
from nixherd.nix import commands as nix


def deployment_of(rollout: Rollout, host_run: HostRun, target: Target, running: Running) -> Deployment:
    """What the machine's program is told of a deployment."""
    options, is_system = host_run.options, host_run.kind is Kind.SYSTEM
    return Deployment(
        *(rollout.id, operator(), options.goal, target.system, options.specialisation),
        *(options.activation_deadline, options.confirm_deadline, host_run.kind, target.generation),
        gated=host_run.machine.access is Access.PUSH_CLOSURE,
        reboot=is_system and why_not_rebootable(host_run) is None,
        unchecked=is_system and options.no_check,
        protocol=running.protocol,
        revision=target.revision,
        backup=None if is_system else options.backup_extension,
    )


def ask_program(machine: Machine, kind: Kind, script: str, *, stdin: str | None = None, what: str) -> Standing:
    """The program's answer. Unclear when it does not give one, NotBegun when sudo or doas did not run it, OSError when
    the connection ended before it did.
    """
    is_root = kind is Kind.SYSTEM and machine.access is not Access.PUSH_CLOSURE
    if machine.access is Access.PUSH_CLOSURE:
        done = machine.run_forced(script)
    else:
        done = machine.run(script, stdin=stdin, sudo=is_root)
        # the new system may ask for a password where the old one did not
        if done.status != 0 and is_root and "password is required" in done.stderr and machine.give_password():
            done = machine.run(script, stdin=stdin, sudo=is_root)
    if done.status != 0 and not (done.stdout.strip() or done.stderr.strip()):  # sshd told no status: it may go on there
        raise OSError(f"{machine.id}: {what}: the connection ended without an answer")
    if done.status != 0:
        error = NotBegun if is_root and REFUSED.search(done.stderr) else Unclear
        raise failure(f"{machine.id}: {what} failed", done.stderr.strip() or done.stdout, kind=error)
    return parse(done.stdout)


def busy(host_id: str, standing: Standing) -> NotBegun:
    """Why nothing was begun while somebody else deploys to the machine."""
    why = f"{standing.busy} is deploying to it (it is {standing.stage}); nothing was done, wait for its end"
    return NotBegun(f"{host_id}: {why}")


def _note(machine: Machine, deployment: Deployment) -> Standing:
    """Have the machine note the revision of what it has already, and read it back.

    FleetError (NotBegun where the machine was not told) when it is not noted, Undecided when nobody knows.
    """
    command, program = deployment.note
    try:
        standing = ask_program(machine, deployment.kind, command, stdin=program, what="noting the revision")
    except NotSent as error:
        raise NotBegun(f"{machine.id}: it was not told to note the revision: {error}") from error
    except (OSError, Unclear) as error:
        why = str(worded(error, "noting the revision")).removeprefix(f"{machine.id}: ")
        what = f"whether it has noted revision {deployment.revision} is not known"
        raise Undecided(f"{machine.id}: {what}: {why}; deploy it again") from error
    if standing.busy:
        raise busy(machine.id, standing)
    if standing.stage is Stage.REFUSED:
        raise NotBegun(f"{machine.id}: {standing.why or 'it says no'}")
    if standing.kept_revision != deployment.revision:
        noted = standing.kept_revision
        raise FleetError(f"{machine.id}: it was told to note revision {deployment.revision}, and notes {noted}")
    return standing


def note_alone(rollout: Rollout, host_run: HostRun, planned: Planned) -> None:
    """Deploy another revision of the system that runs: it is noted; no activation, no generation."""
    with rollout.turn(host_run):
        running = planned.reached.running
        require_root(host_run.machine, running)
        deployment = deployment_of(rollout, host_run, Target.of(planned.config), running)
        if not deployment.notes:
            why = "its program, of the version before, notes no revision: deploy what has nixherd's modules anew"
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


def _pull(host_run: HostRun) -> Completed:
    """Tell the machine to pull. NotBegun when it could not be told, Undecided when it was and did not answer."""
    try:
        return host_run.machine.run_forced("trigger", deadline=host_run.options.activation_deadline)
    except NotSent as error:
        raise NotBegun(f"{host_run.id}: it was not told to pull: {error}") from error
    except OSError as error:
        raise _unknown(host_run, f"it was told to pull, and what it did is not known: {error}") from error


def _unknown(host_run: HostRun, why: str) -> Undecided:
    why = f"{why}; deploy it again, which tells it to pull and to say what runs"
    host_run.end(Outcome.UNKNOWN, why)
    return Undecided(f"{host_run.id}: {why}")


def trigger(rollout: Rollout, host_run: HostRun, planned: PlannedToPull) -> None:
    """Tell the machine to pull; its command says in its last line what runs then. FleetError when that is another.

    Before that it may say what ran, and what it notes of either: `was=` and `noted=`, a path or a line of its notes.
    """
    with rollout.turn(host_run):
        host_run.enter("activate")
        config = planned.config
        done = _pull(host_run)
        lines = [line for line in done.stdout.splitlines() if line.strip()]
        host_run.note(log=[*lines, *done.stderr.splitlines()][-20:])
        if done.status != 0:
            raise failure(f"{host_run.id}: its command failed", [*done.stderr.splitlines(), *lines])
        runs = lines[-1] if lines and nix.is_store_path(lines[-1]) else None
        host_run.note(current=runs)
        if runs is None:
            raise _unknown(host_run, "it ran its command, which does not say what runs")
        if runs != config.toplevel:
            raise FleetError(f"{host_run.id}: it ran its command, and runs {runs}, not {config.toplevel}")
        values = dict(line.split("=", 1) for line in lines if "=" in line)
        was, noted = values.get("was", ""), noted_of(runs, values.get("noted"))
        before = noted_of(runs, was)
        host_run.note(noted=noted)
        if config.revision and noted != config.revision:
            host_run.note(unnoted=f"the machine notes {shown(noted) if noted else 'none'}")
        if was.split(" ", 1)[0] != runs:
            host_run.end(Outcome.DEPLOYED)
        elif noted == before:
            host_run.end(Outcome.UNCHANGED)
        else:
            host_run.end(Outcome.REVISION_ONLY, f"{shown(before)} → {shown(noted)}")
