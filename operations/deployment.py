"""A deployment, row by row: reach, evaluate, build, show, copy, and on each machine activate, prove, keep or go back.

Each row goes on with the value that the one before it made (`nixherd.deploy.rollout`). The rows before `copy` change
nothing, so that `--dry` ends there.
"""

from functools import partial

from pyinfra import host

from nixherd.base.errors import Usage
from nixherd.deploy import activate as activation
from nixherd.deploy import build as building
from nixherd.deploy import copy as copying
from nixherd.deploy import plan as planning
from nixherd.deploy.build import Rebuild, rebuild_in_turn
from nixherd.deploy.options import Engine, Goal, wave_label
from nixherd.deploy.program import note_alone, trigger
from nixherd.deploy.report import Outcome
from nixherd.deploy.rollout import Built, Copied, Planned, PlannedToPull, ReachedToPull, Target
from nixherd.locate.reach import Absent
from nixherd.pyinfra_glue.engine import begin_rollout, builder_for, current, reached_ids
from nixherd.pyinfra_glue.hosts import context_of, executing
from nixherd.pyinfra_glue.operation import Change, NoChange, operation


@operation()
def reach() -> NoChange:
    """Begin a rollout: ask the machine what runs on it, in one round trip."""
    _, host_run = begin_rollout(host)
    try:
        host_run.value = reached = planning.reach(host_run)
    except Absent as error:
        if executing(host) or not host.data.get("makes_machines"):
            raise
        host_run.end(Outcome.PLANNED, f"{error.what}; what is deployed then is known when this run has made it")
        return NoChange(f"{host_run.id} is deployed to when this run has made it: {error.what}")
    if isinstance(reached, ReachedToPull):
        return NoChange(f"{host_run.id} pulls its configuration itself, and is not asked")
    return NoChange(f"{host_run.id} runs {reached.running.current}")


@operation()
def evaluate() -> NoChange:
    """Compare what runs with what the flake says of the host; one evaluation for all that are reached."""
    rollout, host_run = current(host)
    evaluator = context_of(host).evaluator
    planning.require_committed(evaluator.source, rollout, host_run)
    if host_run.is_over:
        return NoChange(f"{host_run.id}: {host_run.outcome}")
    reached = host_run.reached
    host_run.value = planned = planning.plan(evaluator, rollout, host_run, reached, reached_ids(host))
    if isinstance(planned, Planned):
        has = f"{host_run.id} {planning.what_it_has(host_run.options, planned.reached.running)} already"
        if host_run.is_over:
            return NoChange(has)
        if planned.revision_only:
            return NoChange(f"{has}: revision only, {planned.revision_change}")
        if not executing(host):
            planning.note_if_revision_only(evaluator, rollout, host_run, planned)
    return NoChange(f"{host_run.id}: {planned.config.toplevel} is to come")


@operation()
def build() -> NoChange:
    """Build what is to come; one build for all hosts."""
    rollout, host_run = current(host)
    if host_run.is_over:
        return NoChange(f"{host_run.id}: {host_run.outcome}")
    planned = host_run.planned
    if isinstance(planned, PlannedToPull):
        return NoChange(f"{host_run.id} builds by itself")
    if planned.revision_only:
        return NoChange(f"{host_run.id} has it already")
    builder = builder_for(host, host_run)
    # a plan leaves nothing on another machine, and nixos-rebuild has it build by itself
    if builder is not None and (not executing(host) or host_run.options.engine is Engine.NIXOS_REBUILD):
        return NoChange(f"{host_run.id} is built on {host_run.options.build_on} when it is deployed")
    to_come = planning.to_come(context_of(host).evaluator, rollout, reached_ids(host))
    host_run.value = building.build(context_of(host).builder, rollout, host_run, planned, builder, to_come)
    return NoChange(f"{host_run.id}: {planned.config.toplevel} is built")


@operation()
def show() -> NoChange:
    """Say what changes: packages by version and size, and whether a boot is needed for some of it."""
    rollout, host_run = current(host)
    if host_run.is_over:
        return NoChange(f"{host_run.id}: {host_run.outcome}")
    value = host_run.built
    if isinstance(value, PlannedToPull):
        return NoChange(f"{host_run.id} is not asked what changes")
    if isinstance(value, Planned) and value.revision_only:
        return NoChange(f"{host_run.id}: revision only, {value.revision_change}")
    if isinstance(value, Planned):
        return NoChange(f"{host_run.id}: what changes is known when it is built")
    to_come = planning.to_come(context_of(host).evaluator, rollout, reached_ids(host))
    host_run.value = planning.show_changes(rollout, host_run, value, to_come)
    if not executing(host):
        host_run.note(services="not copied, services unknown")
    return NoChange(f"{host_run.id}: {value.planned.reached.running.current} → {value.planned.config.toplevel}")


@operation()
def copy() -> Change | NoChange:
    """Copy what is missing of it to the machine, where it is not garbage until the end."""
    _, host_run = current(host)
    if host_run.is_over:
        return NoChange(f"{host_run.id}: {host_run.outcome}")
    value = host_run.built
    if isinstance(value, PlannedToPull):
        return NoChange(f"{host_run.id} pulls by itself")
    if isinstance(value, Planned) and value.revision_only:
        return NoChange(f"{host_run.id} has it already")
    if copying.is_left_to_nixos_rebuild(host_run, value):
        return NoChange(f"{host_run.id}: nixos-rebuild copies")
    builder = builder_for(host, host_run)
    if builder is not None and builder.id == host_run.id:
        host_run.value = Copied(value) if isinstance(value, Built) else value
        return NoChange(f"{host_run.id} builds it itself")
    # what is only copied leaves the machine as it was: what follows may still not be begun
    return Change(f"copy {value.config.toplevel} to {host_run.id}", partial(copying.copy, host_run), changes=False)


@operation()
def copied() -> Change | NoChange:
    """End the rollout with what was copied being in the machine's store, read back from there; nothing is activated."""
    _, host_run = current(host)
    if host_run.is_over:
        return NoChange(f"{host_run.id}: {host_run.outcome}")
    value = host_run.copied
    if isinstance(value, PlannedToPull):
        host_run.end(Outcome.UNCHANGED, "it pulls by itself")
        return NoChange(f"{host_run.id} pulls by itself")
    if isinstance(value, Planned) and value.revision_only:
        host_run.end(Outcome.UNCHANGED, "it has it already")
        return NoChange(f"{host_run.id} has it already")
    if not executing(host):
        host_run.end(Outcome.PLANNED)
    prove = partial(copying.prove_copied, host_run, value.config.toplevel)
    return Change(f"find {value.config.toplevel} in the store of {host_run.id}", prove, changes=False)


@operation()
def activate(wave: int) -> Change | NoChange:
    """Activate it under the machine's own guard, prove that it runs, and keep it; or have the machine go back.

    Args:
        wave: only hosts of this wave do; each wave is a row of its own, and begins when the one before is proven.
    """
    rollout, host_run = current(host)
    options = host_run.options
    if host_run.is_over:
        return NoChange(f"{host_run.id}: {host_run.outcome}")
    if options.wave != wave:
        return NoChange(f"{host_run.id} goes in {wave_label(options.wave)}")
    value = host_run.copied
    if isinstance(value, Planned) and value.revision_only:
        if not executing(host):
            host_run.end(Outcome.REVISION_ONLY, value.revision_change)
        summary = f"note the revision of what {host_run.id} runs, {value.revision_change}"
        return Change(summary, partial(note_alone, rollout, host_run, value))
    summary = f"{options.goal} {host_run.id} to {value.config.toplevel}"
    if not executing(host):
        host_run.end(Outcome.PLANNED, planning.why_unknown(host_run, value))
        return Change(summary, lambda: None)
    if isinstance(value, PlannedToPull):
        return Change(summary, partial(trigger, rollout, host_run, value))
    if options.engine is Engine.NIXOS_REBUILD:
        request = Rebuild(str(options.goal), builder_for(host, host_run), options.specialisation)
        evaluator = context_of(host).evaluator
        return Change(summary, partial(rebuild_in_turn, evaluator, rollout, host_run, value, request))
    if not isinstance(value, Copied):
        raise Usage(f"{host_run.id}: it is not copied; put deployment.copy before this row")
    if options.goal is Goal.DRY_ACTIVATE:
        return Change(summary, partial(planning.dry_activate, host_run, value))
    built, running = value.built, value.built.planned.reached.running
    return Change(
        summary, partial(activation.activate, rollout, host_run, Target.of(built.config), running, built=built)
    )
