"""Partitions, formats and mounts a machine's disks as its disko configuration says."""

from functools import partial

from pyinfra import host

from nixherd.base.errors import FleetError
from nixherd.proxmox.permission import require_installable
from nixherd.pyinfra_glue import installing
from nixherd.pyinfra_glue.hosts import connector_of, context_of, evaluated, executing, fleet_host
from nixherd.pyinfra_glue.operation import Change, NoChange, operation


@operation()
def format_disks() -> Change | NoChange:
    """Run the disko script of this host in an installer that this fleet booted, and nowhere else."""
    host_id = fleet_host(host).id
    config = evaluated(host)
    machine = installing.machine_of(host, installing.WIPE)
    if installing.is_installed(machine):
        return NoChange(f"{host_id} is installed")
    if config.disko_script is None:
        raise FleetError(f"{host_id}: config.system.build.diskoScript is missing; import disko and declare its disks")
    job = installing.disko_job(config.disko_script)
    if machine and machine["jobs"].get("disko") == job.well and (machine["mnt"] or machine["jobs"].get("install")):
        return NoChange(f"{host_id}'s disks are formatted and mounted")
    require_installable(context_of(host).fleet, host_id, installing.WIPE)
    if machine and executing(host):
        installing.require_our_installer(host, machine)
        connector_of(host).prove_for_wiping()
    summary = f"wipe {', '.join(config.devices)} of {host_id}, partition, format and mount below /mnt"
    return Change(summary, partial(installing.wipe, host, job))
