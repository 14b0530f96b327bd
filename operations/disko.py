"""Partitions, formats and mounts a machine's disks as its disko configuration says."""

from pyinfra import host
from pyinfra.api import operation

from facts.machine import Machine, MachineState
from fleetwright.errors import FleetError, Refused
from fleetwright.guard import mark, require_installable
from fleetwright.jobs import Job
from operations.remote import copy_closure, run_job
from operations.steps import Commands, build_selection, decide, do, evaluated, executing, fleet_host, session_of

DISKO_DEADLINE = 900  # seconds


@operation()
def format_disks() -> Commands:
    """Run the disko script of this host in an installer that this fleet booted, and nowhere else."""
    yield from decide(host, _format)


def installed_or_none(machine: MachineState | None) -> bool:
    return machine is not None and machine["id"] == "nixos" and machine["variant"] != "installer"


def require_our_installer(machine: MachineState) -> None:
    """Refused unless this is the installer that this fleet booted for this very host."""
    session, host_id = session_of(host), fleet_host(host).id
    if machine["variant"] != "installer" or machine["mark"] != mark(session, host_id):
        raise Refused(
            f"{host_id} is not in an installer that this fleet booted for it; refusing to touch its disk; "
            "run deploys/install.py from its start"
        )


def _format() -> Commands:
    session, host_id = session_of(host), fleet_host(host).id
    about = evaluated(host)
    machine = host.get_fact(Machine)
    if installed_or_none(machine):
        host.noop(f"{host_id} is installed")
        return
    if about.disko_script is None:
        raise FleetError(f"{host_id}: config.system.build.diskoScript is missing; import disko and declare its disks")
    job = Job("disko", about.disko_script, _script(about.disko_script), DISKO_DEADLINE)
    if machine and machine["jobs"].get("disko") == job.well and (machine["mnt"] or machine["jobs"].get("install")):
        host.noop(f"{host_id}'s disks are formatted and mounted")
        return
    require_installable(session, host_id, "wipe the disks of")
    if machine is None and executing(host):
        raise FleetError(f"{host_id}: the machine did not say what runs on it")
    if machine and executing(host):
        require_our_installer(machine)

    def act() -> None:
        build_selection(host)
        copy_closure(host, [job.key])
        run_job(host, job)

    yield from do(host, f"wipe {', '.join(about.devices)} of {host_id}, partition, format and mount below /mnt", act)


def _script(disko_script: str) -> str:
    # What an earlier run left mounted is unmounted first. If that fails nothing is wiped: -e ends the job here.
    return f"if mountpoint -q /mnt; then umount -R /mnt; fi\n{disko_script}\nmountpoint -q /mnt"
