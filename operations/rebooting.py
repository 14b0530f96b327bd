"""Reboots as a plan of their own: who needs one and why, and the proof that it took place and what runs after it."""

from functools import partial

from pyinfra import host

from nixherd.base.errors import FleetError
from nixherd.base.names import flag_of
from nixherd.deploy import reboot as rebooting
from nixherd.deploy.options import wave_label
from nixherd.deploy.report import Outcome
from nixherd.deploy.rollout import ReachedToPull
from nixherd.pyinfra_glue.engine import current
from nixherd.pyinfra_glue.hosts import executing
from nixherd.pyinfra_glue.operation import Change, NoChange, operation


@operation()
def plan(force: bool = False) -> NoChange:
    """Say who needs a reboot and why; the others are done.

    Args:
        force: also those that need none.
    """
    _, host_run = current(host)
    reached = host_run.reached
    if isinstance(reached, ReachedToPull):
        host_run.end(Outcome.UNCHANGED, "it can be triggered, not asked")
        return NoChange(f"{host_run.id}: it can be triggered, not asked")
    return NoChange(rebooting.plan_reboot(host_run, reached.running, force=flag_of("force", force)))


@operation()
def reboot(wave: int) -> Change | NoChange:
    """Reboot the machine, and prove that it did, what runs then, and that no unit fails that did not fail before.

    Args:
        wave: only hosts of this wave; those of one role, or of none, go one after the other.
    """
    rollout, host_run = current(host)
    if host_run.is_over:
        return NoChange(f"{host_run.id}: {host_run.outcome}")
    if host_run.options.wave != wave:
        return NoChange(f"{host_run.id} goes in {wave_label(host_run.options.wave)}")
    reached = host_run.reached
    if isinstance(reached, ReachedToPull):
        raise FleetError(f"{host_run.id}: it can be triggered, not asked")
    if not executing(host):
        host_run.end(Outcome.PLANNED)
    return Change(f"reboot {host_run.id}", partial(rebooting.reboot, rollout, host_run, reached.running))
