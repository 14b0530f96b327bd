"""Partitions, formats and mounts a machine's disks as its disko configuration says."""

from collections.abc import Mapping
from functools import partial

from pyinfra import host
from pyinfra.api.host import Host

from nixherd.base.errors import FleetError
from nixherd.deploy.copy import copy_closure
from nixherd.deploy.installation import disk_keys
from nixherd.deploy.machine import run_job
from nixherd.proxmox.permission import require_installable
from nixherd.pyinfra_glue import carrying, installing
from nixherd.pyinfra_glue.engine import options_of
from nixherd.pyinfra_glue.hosts import build_selection, connector_of, context_of, evaluated, executing, fleet_host
from nixherd.pyinfra_glue.operation import Change, NoChange, operation
from nixherd.ssh.login_shell import Job


@operation()
def format_disks(keys: Mapping[str, str] | None = None) -> Change | NoChange:
    """Run the disko script of this host in an installer that this fleet booted, and nowhere else.

    Args:
        keys: files that the script reads, `{"/tmp/secret.key": "path/of/the/local/file"}`; they are in the
            installer's memory for as long as the script runs, for root alone.
    """
    host_id = fleet_host(host).id
    config = evaluated(host)
    machine = installing.machine_of(host, installing.WIPE)
    if installing.is_installed(machine):
        return NoChange(f"{host_id} is installed")
    if config.disko_script is None:
        raise FleetError(f"{host_id}: config.system.build.diskoScript is missing; import disko and declare its disks")
    contents = disk_keys(host_id, keys)
    job = installing.disko_job(config.disko_script, contents)
    if machine and machine["jobs"].get("disko") == job.well and (machine["mnt"] or machine["jobs"].get("install")):
        return NoChange(f"{host_id}'s disks are formatted and mounted")
    require_installable(context_of(host).fleet, host_id, installing.WIPE)
    if installing.is_due(host, "kexec"):
        installing.require_our_installer(host, machine)
        if executing(host):
            connector_of(host).prove_for_wiping()
    summary = f"wipe {', '.join(config.devices)} of {host_id}, partition, format and mount below /mnt"
    return Change(summary, partial(_wipe, host, job, contents))


def _wipe(host: Host, job: Job, keys: Mapping[str, bytes]) -> None:
    """Run the disko script on the machine."""
    machine = installing.machine_for(host)
    build_selection(host)
    copy_closure(machine, [job.key], is_nixos=True, sign_with=options_of(host).sign_with)
    installing.require_still_installable(host, installing.WIPE)
    with carrying.keys_in_memory(machine, keys, job):
        run_job(machine, job)
