"""What goes through the machines in waves."""

from pyinfra import host

from nixherd.deploy.options import wave_label
from nixherd.operations import deployment, rebooting
from nixherd.pyinfra_glue.deploy_file import workflow
from nixherd.pyinfra_glue.engine import waves


@workflow("deploy", rollout=True, from_flake=True)
def deploy() -> None:
    """Bring machines to what the flake says: evaluated and built once for all, activated under guard, proven, kept."""
    deployment.reach(name="reach: what runs there")
    deployment.evaluate(name="evaluate: what the flake says")
    deployment.build(name="build: what is to come")
    deployment.show(name="show: what changes")
    deployment.copy(name="copy: what is missing there")
    for wave in host.loop(waves(host)):
        deployment.activate(name=f"activate: {wave_label(wave)}: switch, prove, keep or go back", wave=wave)


@workflow("copy", rollout=True, from_flake=True)
def copy() -> None:
    """Copy to machines what they are to run, so that a deployment later is short; activate nothing."""
    deployment.reach(name="reach: what runs there")
    deployment.evaluate(name="evaluate: what the flake says")
    deployment.build(name="build: what is to come")
    deployment.copy(name="copy: what is missing there")
    deployment.copied(name="copied: read back from the machine's store")


@workflow("reboot", rollout=True)
def reboot() -> None:
    """Reboot who needs it, one of a role at a time, each proven by another boot_id and the checks as before."""
    deployment.reach(name="reach: what runs there")
    rebooting.plan(name="plan: who needs a reboot, and why", force=host.data.get("force") or False)
    for wave in host.loop(waves(host)):
        rebooting.reboot(name=f"reboot: {wave_label(wave)}: one at a time, proven", wave=wave)
