"""What is said to the program that deploys on a machine, and which revision it is told to note of what it has."""

from dataclasses import dataclass

from pyinfra.api.host import Host

from nixherd.deploy.protocol import PROTOCOL, Deployment, Kind, Stage, Standing, parse
from nixherd.deploy.report import Outcome
from nixherd.deploy.run import DeployRun, HostRun
from nixherd.errors import FAILURES, FleetError, NotBegun
from nixherd.faults import worded
from nixherd.fleet.models import Access
from nixherd.fleet.revisions import is_revision, shown
from operations.deploy_run import ANSWER_DEADLINE, give_password
from operations.rebooting import may_reboot
from operations.steps import as_root, connector_of, shell


@dataclass(frozen=True)
class Wanted:
    """What is to run in the end, and what it calls itself, None where that is not known. `revision`: of the fleet's,
    which the machine notes. `generation`: its number in the profile, where it is to be that one again."""

    system: str
    hostname: str | None = None
    revision: str | None = None
    generation: int | None = None


def deployment_of(host: Host, run: DeployRun, own: HostRun, wanted: Wanted) -> Deployment:
    """This run's on the machine."""
    options, system = own.options, own.kind is Kind.SYSTEM
    return Deployment(
        *(run.id, run.who, options.goal, wanted.system, options.specialisation),
        *(options.activation_deadline, options.confirm_deadline, own.kind, wanted.generation),
        gated=connector_of(host).access is Access.PUSH_CLOSURE,
        reboot=system and may_reboot(host) is None,
        unchecked=system and options.no_check,
        protocol=own.state.get("protocol", PROTOCOL) if own.state else PROTOCOL,
        revision=wanted.revision,
    )


def said(host: Host, own: HostRun, script: str, *, stdin: str | None = None, what: str) -> str:
    """What the program answers. FleetError when it does not."""
    if connector_of(host).access is Access.PUSH_CLOSURE:
        ok, output = connector_of(host).forced(script, ANSWER_DEADLINE)
        if not ok:
            raise FleetError(f"{host.name}: {what} failed: {(output.stderr_lines or ['no answer'])[-1]}")
        return str(output.stdout)
    if own.kind is Kind.HOME:
        return shell(host, script, stdin=stdin, what=what)
    try:
        return as_root(host, script, stdin=stdin, what=what)
    except FleetError as error:
        # the new system may ask for one where the old one did not
        if "password is required" not in str(error) or not give_password(host):
            raise
        return as_root(host, script, stdin=stdin, what=what)


def note(host: Host, own: HostRun, deployment: Deployment) -> Standing:
    """Have the machine note the revision of what it has already; the note is read back. FleetError when it is not."""
    command, program = deployment.note
    now = parse(said(host, own, command, stdin=program, what="noting the revision"))
    if now.busy:
        raise NotBegun(
            f"{own.id}: {now.busy} is deploying to it (it is {now.stage}); nothing was done, wait for its end"
        )
    if now.stage is Stage.REFUSED:
        raise NotBegun(f"{own.id}: {now.why or 'it says no'}")
    if now.kept_revision != deployment.revision:
        raise FleetError(f"{own.id}: it was told to note revision {deployment.revision}, and notes {now.kept_revision}")
    return now


def note_alone(host: Host, run: DeployRun, own: HostRun, wanted: Wanted) -> None:
    """The whole of a deployment where another revision comes to the same closure: no activation, no generation."""
    before = own.state["revision"] if own.state else None
    deployment = deployment_of(host, run, own, wanted)
    if not deployment.notes:
        why = "its program is of the version before, which notes no revision: deploy what has nixherd's modules anew"
        own.end(Outcome.UNCHANGED, why)
        return
    own.enter("note")
    now = note(host, own, deployment)
    own.found(noted=now.kept_revision, current=now.current, profile=now.profile)
    own.end(Outcome.REVISION_ONLY, f"{shown(before)} → {shown(now.kept_revision)}")


def note_too(host: Host, own: HostRun, deployment: Deployment, kept: Standing | None = None) -> None:
    """Say of which revision the machine notes what was kept to be, read back; that it cannot fails nothing.

    `kept` is what it said of its deployment; one that was kept by something else, or by a program that knew of no
    revision, is noted now.
    """
    found, why = kept.kept_revision if kept else None, kept.unnoted if kept else None
    wanted = deployment.revision
    if wanted is None or not is_revision(wanted):
        own.found(noted=found)
        return
    try:
        if found != wanted and why is None and (kept is None or kept.protocol == PROTOCOL):
            found = note(host, own, deployment).kept_revision
    except FAILURES as error:
        why = str(worded(error, f"{own.id}: noting the revision")).removeprefix(f"{own.id}: ")
    own.found(noted=found)
    if found != wanted:
        why = (why or "the machine's program notes none").removeprefix("the revision is not noted: ")
        own.found(unnoted=why)
        own.said(f"revision not noted: {why}")
        host.log(f"revision not noted: {why}")
