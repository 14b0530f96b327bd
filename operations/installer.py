"""Takes a machine that SSH reaches into the NixOS installer, by kexec."""

from functools import partial

from pyinfra import host

from nixherd.base.errors import FleetInvalid, Refused
from nixherd.proxmox.permission import mark, require_installable
from nixherd.pyinfra_glue import installing
from nixherd.pyinfra_glue.hosts import connector_of, context_of, executing, fleet_host
from nixherd.pyinfra_glue.operation import Change, NoChange, operation


@operation()
def boot() -> Change | NoChange:
    """Boot the installer on a machine that runs something else; one that runs NixOS already is left alone.

    The tarball is the flake's own `packages.SYSTEM.kexec-installer`. It keeps the machine's host key and
    its authorized keys, so what was pinned before the jump is pinned after it.
    """
    fleet, host_id = context_of(host).fleet, fleet_host(host).id
    machine = installing.machine_of(host, installing.BOOT)
    if machine and machine["variant"] == "installer":
        if machine["mark"] == mark(fleet, host_id):
            return NoChange(f"{host_id} is in its installer")
        if context_of(host).run.state_of(host_id).noted("kexec") != installing.jump_note(host):
            raise Refused(
                f"{host_id} is in an installer that this fleet did not boot, so its disk is not ours to wipe; "
                "boot it from its disk and run this again"
            )
        if executing(host):
            connector_of(host).prove_for_wiping()
        return Change(f"mark the installer of {host_id} as ours", partial(installing.mark_installer, host))
    if installing.is_installed(machine):
        return NoChange(f"{host_id} runs NixOS already")
    require_installable(fleet, host_id, installing.BOOT)
    if obstacles := installing.findings(host):
        raise FleetInvalid(obstacles)
    if machine and executing(host):
        connector_of(host).prove_for_wiping()
    return Change(f"boot the NixOS installer on {host_id} by kexec", partial(installing.boot_installer, host))
