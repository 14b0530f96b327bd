"""nixos-rebuild itself, run here against a machine, and what is there afterwards read back."""

from dataclasses import dataclass, replace

from nixherd.base.errors import DeadlineExceeded, FleetError, NotBegun, ProcessFailed, Undecided, Unforeseen
from nixherd.base.files import write_whole
from nixherd.base.process import run
from nixherd.deploy.copy import run_towards
from nixherd.deploy.machine import Machine
from nixherd.deploy.options import Engine
from nixherd.deploy.program import deployment_of, note_too
from nixherd.deploy.report import Outcome
from nixherd.deploy.run import Built, Copied, HostRun, Planned, Rollout, Target
from nixherd.deploy.running import Running, try_running
from nixherd.nix import nixos_rebuild
from nixherd.nix.evaluator import Evaluator
from nixherd.nix.nixos_rebuild import Flavour
from nixherd.ssh.destination import Destination

DEADLINE = 4 * 3600.0  # seconds
HELP_DEADLINE = 60.0


@dataclass(frozen=True)
class Rebuild:
    """What nixos-rebuild is to do; `builder` is the machine that builds, None for this one."""

    action: str
    builder: Machine | None = None
    specialisation: str | None = None


def rebuild_in_turn(
    evaluator: Evaluator, rollout: Rollout, host_run: HostRun, value: Planned | Built | Copied, request: Rebuild
) -> None:
    """Run it for a host of a rollout in its turn; what is copied already need not be."""
    value = value.built if isinstance(value, Copied) else value
    planned = value.planned if isinstance(value, Built) else value
    with rollout.turn(host_run):
        rebuild(evaluator, rollout, host_run, planned, request)


def rebuild(evaluator: Evaluator, rollout: Rollout, host_run: HostRun, planned: Planned, request: Rebuild) -> None:
    """Run it to its end, and note of which revision that is. FleetError when it fails, or something else runs then."""
    toplevel, before = planned.config.toplevel, planned.reached.running
    host_run.note(engine=Engine.NIXOS_REBUILD)
    host_run.enter("activate")
    failure: FleetError | None = None
    try:
        _run(evaluator, rollout, host_run, request)
    except (ProcessFailed, DeadlineExceeded) as error:
        failure = error
    host_run.enter("prove")
    now = _ask_again(host_run, failure)
    host_run.note(current=now.current, profile=now.profile)
    if request.action != "dry-activate" and toplevel in (now.current, now.profile):
        host_run.options = replace(host_run.options, specialisation=request.specialisation)
        target = Target(toplevel, revision=planned.config.revision)
        note_too(host_run, deployment_of(rollout, host_run, target, replace(now, protocol=before.protocol)))
    judge(host_run, before, now, None if request.specialisation else toplevel, request.action, failure)


def _run(evaluator: Evaluator, rollout: Rollout, host_run: HostRun, request: Rebuild) -> None:
    machine, flake = host_run.machine, f"{evaluator.flake}#{host_run.id}"
    with rollout.flavour as flavour:
        if flavour.is_empty:
            done = run(nixos_rebuild.HELP, timeout=HELP_DEADLINE, check=False)
            flavour.value = Flavour.of(done.stdout + done.stderr)

    def command(to: Destination | None) -> tuple[list[str], dict[str, str]]:
        build_host = request.builder.copy_to() if request.builder else None
        if to and build_host:
            both = evaluator.run.known_hosts_of(host_run.id) / "with-its-builder"
            write_whole(both, to.known_hosts.read_text() + build_host.known_hosts.read_text())
            text = to.along_with(build_host, both)
            config = evaluator.run.known_hosts_of(host_run.id) / "config-with-its-builder"
            write_whole(config, text.text + "\n")
            to = replace(text, config=config)
        return nixos_rebuild.rebuild(
            *(flavour.value, request.action, flake, to),
            build_host=build_host,
            specialisation=request.specialisation,
            no_check=host_run.options.no_check,
        )

    if machine.is_local:
        argv, environment = command(None)
        run(argv, env=environment, timeout=DEADLINE)
    else:
        run_towards(machine, command, DEADLINE)


def _ask_again(host_run: HostRun, failure: FleetError | None) -> Running:
    """What is there now. Undecided when nobody says it."""
    try:
        running = try_running(host_run.machine, host_run.kind, reconnect=True)
    except Unforeseen as fault:
        running = fault
    if isinstance(running, Running):
        return running
    first = f"{failure}; " if failure else ""
    raise Undecided(f"{host_run.id}: {first}it cannot be asked what it runs now: {running}") from running


def judge(
    host_run: HostRun, before: Running, now: Running, system: str | None, action: str, failure: FleetError | None
) -> None:
    """Judge by what is there, whatever the program's status.

    nixos-rebuild sets the profile first, activates then, and never goes back. FleetError when what is there is not
    `system` (None where nobody knows), or not well.
    """
    current, profile = now.current, now.profile
    if action == "dry-activate":
        if failure:
            raise NotBegun(f"{host_run.id}: {failure}")
        host_run.end(Outcome.PLANNED)
        return
    if failure and (current, profile) == (before.current, before.profile):
        raise NotBegun(f"{host_run.id}: {failure}; it runs and boots what it did before")
    read = profile if action == "boot" else current
    if system not in (None, read):
        end = failure or f"nixos-rebuild {action} ended well"
        raise FleetError(
            f"{host_run.id}: {end}, but what is there is {read}, not {system}; its profile leads to {profile}, and "
            "nothing goes back by itself"
        )
    if system and action == "switch" and profile != system:
        host_run.note(profile_moved=f"its profile leads to {profile}, which somebody else has let it lead to meanwhile")
    failing = [] if action == "boot" else sorted(set(now.unwell) - set(before.unwell))
    if failure or failing:
        units = f"; units fail: {', '.join(failing)}" if failing else ""
        why = f"{failure or 'nixos-rebuild ended well'}{units}; it runs {current} all the same, and nothing goes back"
        host_run.end(Outcome.DEPLOYED_NOT_WELL, why)
        raise FleetError(f"{host_run.id}: {why}")
    host_run.end(Outcome.PENDING_REBOOT if action == "boot" else Outcome.DEPLOYED)
