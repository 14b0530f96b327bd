"""Partitions, formats and mounts a machine's disks as its disko configuration says."""

from pyinfra import host
from pyinfra.api import operation

from nixherd.errors import FleetError
from nixherd.install.permission import require_installable
from nixherd.ssh.transient_unit import Job
from operations.machine import (
    is_installed,
    machine_of,
    require_our_installer,
    require_still_installable,
    require_the_guest,
)
from operations.remote import copy_closure, run_job
from operations.steps import Commands, build_selection, decide, do, evaluated, executing, fleet_host, session_of

DISKO_DEADLINE = 900  # seconds
WIPE = "wipe the disks of"


@operation()
def format_disks() -> Commands:
    """Run the disko script of this host in an installer that this fleet booted, and nowhere else."""
    yield from decide(host, _format)


def _format() -> Commands:
    session, host_id = session_of(host), fleet_host(host).id
    about = evaluated(host)
    machine = machine_of(host, WIPE)
    if is_installed(machine):
        host.noop(f"{host_id} is installed")
        return
    if about.disko_script is None:
        raise FleetError(f"{host_id}: config.system.build.diskoScript is missing; import disko and declare its disks")
    job = Job("disko", about.disko_script, _script(about.disko_script), DISKO_DEADLINE)
    if machine and machine["jobs"].get("disko") == job.well and (machine["mnt"] or machine["jobs"].get("install")):
        host.noop(f"{host_id}'s disks are formatted and mounted")
        return
    require_installable(session.fleet, host_id, WIPE)
    if machine and executing(host):
        require_our_installer(host, machine)
        require_the_guest(host)

    def act() -> None:
        build_selection(host)
        copy_closure(host, [job.key])
        require_still_installable(host, WIPE)
        run_job(host, job)

    yield from do(host, f"wipe {', '.join(about.devices)} of {host_id}, partition, format and mount below /mnt", act)


def _script(disko_script: str) -> str:
    # What an earlier run left mounted is unmounted first. If that fails nothing is wiped: -e ends the job here.
    return f"if mountpoint -q /mnt; then umount -R /mnt; fi\n{disko_script}\nmountpoint -q /mnt"
