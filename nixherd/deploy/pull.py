"""A machine that takes nothing but the word to pull its configuration itself."""

from nixherd.deploy.report import Outcome
from nixherd.deploy.run import HostRun, Rollout
from nixherd.deploy.values import PlannedToPull
from nixherd.errors import FleetError
from nixherd.fleet.revisions import noted_of, shown
from nixherd.nix import commands as nix
from nixherd.reasons import failure


def trigger(rollout: Rollout, host_run: HostRun, planned: PlannedToPull) -> None:
    """Tell the machine to pull; its command says in its last line what runs then. FleetError when that is another.

    Before that it may say what ran, and what it notes of either: `was=` and `noted=`, a path or a line of its notes.
    """
    with rollout.turn(host_run, host_run.options.role or host_run.id):
        _trigger(host_run, planned)


def _trigger(host_run: HostRun, planned: PlannedToPull) -> None:
    host_run.enter("activate")
    config = planned.config
    done = host_run.machine.run_forced("trigger", deadline=host_run.options.activation_deadline)
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    host_run.note(log=[*lines, *done.stderr.splitlines()][-20:])
    if done.status != 0:
        raise failure(f"{host_run.id}: its command failed", [*done.stderr.splitlines(), *lines])
    runs = lines[-1] if lines and nix.is_store_path(lines[-1]) else None
    host_run.note(current=runs)
    if runs != config.toplevel:
        raise FleetError(
            f"{host_run.id}: it ran its command, and runs {runs or 'what it does not say'}, not {config.toplevel}"
        )
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
