"""Where what is to come to a machine is built; and nixos-rebuild itself, whose result is read back."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from nixherd.base.errors import FAILURES, FleetError, NotBegun, ProcessFailed, Undecided, Usage
from nixherd.base.files import write_whole
from nixherd.base.process import run
from nixherd.base.terminal import worded
from nixherd.deploy.copy import build_and_fetch, run_towards
from nixherd.deploy.health import failing
from nixherd.deploy.machine import Machine, output_of
from nixherd.deploy.options import HERE, TARGET, Engine
from nixherd.deploy.program import deployment_of, note_too
from nixherd.deploy.protocol import Kind, hold
from nixherd.deploy.report import Outcome
from nixherd.deploy.rollout import Built, Copied, HostRun, Planned, Rollout, Target
from nixherd.deploy.running import NOT_NOW, Running, ask_running, require_root, specialised
from nixherd.fleet.models import Access, Fleet
from nixherd.nix import commands as nix
from nixherd.nix.builder import BUILD_DEADLINE, Builder
from nixherd.nix.commands import Evaluated
from nixherd.nix.errors import reason_of
from nixherd.nix.evaluator import Evaluator
from nixherd.nix.log import BuildProgress
from nixherd.nix.rebuild import REBUILD_HELP, Flavour, nixos_rebuild, require_action
from nixherd.ssh.destination import Destination

Machines = Callable[[str], Machine]


DEADLINE = 4 * 3600.0  # seconds
HELP_DEADLINE = 60.0


def builder_of(fleet: Fleet, machine: Machine, build_on: str, machines: Machines) -> Machine | None:
    """The machine that builds for this one; None where that is done here. `machines` gives those of other hosts.

    Usage when the fleet has none of this name, or it lets nobody build there.
    """
    if build_on == HERE or (build_on == TARGET and machine.is_local):
        return None
    named = [each.id for each in fleet.hosts.values() if build_on in (each.id, each.ssh_alias)]
    if build_on != TARGET and not named:
        raise Usage(f"build_on={build_on} is neither {HERE}, {TARGET} nor a host of the fleet")
    builder = machine if build_on == TARGET or named[0] == machine.id else machines(named[0])
    if builder.access is not Access.SHELL:
        raise Usage(f"build_on={build_on}: {builder.id} takes forced commands alone and builds for nobody")
    return builder


def build(
    nix_builder: Builder,
    rollout: Rollout,
    host_run: HostRun,
    planned: Planned,
    builder: Machine | None,
    to_come: Sequence[Evaluated],
) -> Built:
    """Build it for this host, and in one go all of `to_come` that the same builder builds.

    FleetError when what this host needs cannot be built.
    """
    host_run.enter("build")
    progress, journal = BuildProgress(), host_run.journal

    def tell(line: str) -> None:
        if text := progress.feed(line):
            journal.note("progress", text=text)

    build_on = {id: each.options.build_on for id, each in rollout.hosts.items()}
    alike = (config for config in to_come if build_on[config.host_id] == host_run.options.build_on)
    derivations = {config.host_id: [config.toplevel_drv] for config in (planned.config, *alike)}
    if builder and builder.id == host_run.id:
        _build_there(host_run, planned, tell)
        return Built(planned, is_there=True)
    nix_builder.realise(
        derivations, host_run.id, tell, fetch=partial(build_and_fetch, builder, tell) if builder else None
    )
    return Built(planned)


def _build_there(host_run: HostRun, planned: Planned, tell: Callable[[str], None]) -> None:
    """Have it built where it is to run, and be no garbage there from its first moment."""
    config = planned.config
    if host_run.kind is Kind.SYSTEM:
        require_root(host_run.machine, planned.reached.running)
        output_of(host_run.machine, hold(config.toplevel), what="holding it", sudo=True)
    installables = [f"{config.toplevel_drv}^*"]
    try:
        run_towards(host_run.machine, lambda to: nix.build_at(installables, to), BUILD_DEADLINE, tell)
    except ProcessFailed as error:
        raise FleetError(f"{host_run.id}: building on it failed: {reason_of(error)}") from error


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
        if why := planned.reached.running.hold:
            raise host_run.held(NOT_NOW.format(why))
        rebuild(evaluator, rollout, host_run, planned, request)


def rebuild(evaluator: Evaluator, rollout: Rollout, host_run: HostRun, planned: Planned, request: Rebuild) -> None:
    """Run it to its end, and note of which revision that is. FleetError when it fails, or something else runs then.

    However it ends, it may have begun: what counts is what is read back.
    """
    require_action(request.action)
    toplevel, before = planned.config.toplevel, planned.reached.running
    host_run.options = replace(host_run.options, specialisation=request.specialisation)
    deployment = deployment_of(rollout, host_run, Target(toplevel, revision=planned.config.revision), before)
    host_run.note(engine=Engine.NIXOS_REBUILD)
    host_run.enter("activate")
    failure: FleetError | None = None
    try:
        _run(evaluator, rollout, host_run, request)
    except FAILURES as error:
        failure = worded(error, f"{host_run.id}: nixos-rebuild")
    host_run.enter("prove")
    now, system = _ask_again(host_run, toplevel, request.specialisation, failure)
    host_run.note(current=now.current, profile=now.profile)
    if request.action != "dry-activate" and toplevel in (now.current, now.profile):
        note_too(host_run, deployment)
    problem = None
    if request.action in ("switch", "test") and now.current == system:
        until = time.monotonic() + host_run.options.confirm_deadline
        problem = failing(host_run.machine, planned.checks, until, by_root=True)
    judge(host_run, before, now, toplevel, request.action, failure, system=system, problem=problem)


def _run(evaluator: Evaluator, rollout: Rollout, host_run: HostRun, request: Rebuild) -> None:
    machine, flake = host_run.machine, f"{evaluator.flake}#{host_run.host.attribute.name}"
    with rollout.flavour as flavour:
        if flavour.is_empty:
            done = run(REBUILD_HELP, timeout=HELP_DEADLINE, check=False)
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
        return nixos_rebuild(
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


def _ask_again(
    host_run: HostRun, toplevel: str, specialisation: str | None, failure: FleetError | None
) -> tuple[Running, str | None]:
    """What is there now, and the system that is to run: None without such a specialisation. Undecided otherwise."""
    try:
        host_run.machine.reconnect()
        running = ask_running(host_run.machine, host_run.kind)
        if specialisation is None:
            return running, toplevel
        return running, specialised(host_run.machine, toplevel, specialisation)
    except FAILURES as error:
        fault = worded(error, f"{host_run.id}: asking what runs on it")
        first = f"{failure}; " if failure else ""
        raise _undecided(host_run, f"{first}it cannot be asked what it runs now: {fault}") from error


def _undecided(host_run: HostRun, why: str) -> Undecided:
    host_run.end(Outcome.UNKNOWN, why)
    return Undecided(f"{host_run.id}: {why}")


def judge(
    host_run: HostRun,
    before: Running,
    now: Running,
    toplevel: str,
    action: str,
    failure: FleetError | None,
    *,
    system: str | None,
    problem: str | None = None,
) -> None:
    """Judge by what is there, whatever the program's status.

    nixos-rebuild sets the profile to `toplevel` first, activates `system` then (it, or one of its specialisations, None
    where that does not exist), and never goes back. FleetError when that is not what is there, or not well: `problem`
    is a health check that does not pass.
    """
    current, profile = now.current, now.profile
    if action == "dry-activate":
        if failure:
            raise NotBegun(f"{host_run.id}: {failure}")
        host_run.end(Outcome.PLANNED)
        return
    if failure and now.at_work:
        at_work = f"{', '.join(now.at_work)} is still under way there; it runs {current} so far"
        raise _undecided(host_run, f"{failure}; {at_work}: wait for its end, and deploy it again")
    if failure and (current, profile) == (before.current, before.profile):
        raise NotBegun(f"{host_run.id}: {failure}; it runs and boots what it did before")
    end = failure or f"nixos-rebuild {action} ended well"
    if system is None:
        raise FleetError(f"{host_run.id}: {end}, and {toplevel} has no such specialisation there; it runs {current}")
    read, due = (profile, toplevel) if action == "boot" else (current, system)
    if read != due:
        raise FleetError(
            f"{host_run.id}: {end}, but what is there is {read}, not {due}; its profile leads to {profile}, and "
            "nothing goes back by itself"
        )
    units = [] if action == "boot" else sorted(set(now.unwell) - set(before.unwell))
    moved = action == "switch" and profile != toplevel
    if failure or units or problem or moved:
        problems = [f"units fail: {', '.join(units)}"] if units else []
        problems += [problem] if problem else []
        problems += [f"its profile leads to {profile}, not {toplevel}: a boot brings another"] if moved else []
        why = "; ".join([f"{end}", *problems, f"it runs {current} all the same, and nothing goes back"])
        host_run.end(Outcome.DEPLOYED_NOT_WELL, why)
        raise FleetError(f"{host_run.id}: {why}")
    host_run.end(Outcome.PENDING_REBOOT if action == "boot" else Outcome.DEPLOYED)
