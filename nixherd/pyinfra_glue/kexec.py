"""Takes a machine into the NixOS installer by kexec, and marks the installer as ours."""

import shlex

from pyinfra.api.host import Host

from nixherd.deploy.copy import copy_towards
from nixherd.deploy.machine import output_of
from nixherd.errors import FleetError
from nixherd.install.permission import mark
from nixherd.install.requirements import obstacles
from nixherd.locate.reach import Epoch
from nixherd.pyinfra_glue.hosts import (
    builder_of,
    connector_of,
    evaluated,
    fleet_host,
    fleet_of,
    keys_of,
    run_of,
)
from nixherd.pyinfra_glue.installing import machine_for, require_still_installable
from nixherd.ssh.transient_unit import DIRECTORY

UPLOAD_DEADLINE = 1800.0  # seconds
NEEDED = ("tar", "gzip", "cpio", "setsid")  # by the tarball's script
BOOT = "boot the installer on"


def findings(host: Host) -> list[str]:
    """What of this side would stop the installation of this host half-way."""
    data = host.data
    given = data.get("extra_files"), data.get("hardware_configuration")
    return list(obstacles(keys_of(host), builder_of(host), evaluated(host), *given))


def boot_installer(host: Host) -> None:
    """Upload the flake's installer and jump into it. FleetError when the machine cannot take it."""
    host_id, connector, machine = fleet_host(host).id, connector_of(host), machine_for(host)
    tarball = builder_of(host).kexec_tarball()
    sudo = "" if connector.destination().user == "root" else "sudo -n "
    require_still_installable(host, BOOT)
    output_of(machine, f"{sudo}true", what=f"becoming root (`{sudo}true`)")
    missing = output_of(machine, f"for p in {' '.join(NEEDED)}; do command -v $p >/dev/null || echo $p; done").split()
    if missing:
        raise FleetError(f"{host_id} lacks {', '.join(missing)}, which the installer needs; install it in the template")
    host.log(f"copying {tarball.name} ({tarball.stat().st_size >> 20} MiB)")
    # Into a place of its own: what another run left, or still sends, is not what is run.
    unpack = f"d=$({sudo}mktemp -d /root/kexec.XXXXXX) && {sudo}tar -C $d -xzf - && echo $d"
    send = ["sh", "-c", 'exec "$@" < "$0"', str(tarball)]
    place = copy_towards(machine, lambda to: ([*send, *to.argv(unpack)], {}), UPLOAD_DEADLINE).stdout.strip()
    run_of(host).state_of(host_id).note("kexec", jump_note(host))
    output_of(machine, f"{sudo}setsid --wait {shlex.quote(place)}/kexec/run", what="the kexec installer")
    connector.drop()
    address = connector.reach(epochs=(Epoch.INSTALLER,), absent_ok=True).address
    host.log(f"the installer answers at {address}")
    mark_installer(host)


def jump_note(host: Host) -> str:
    """What is noted before the jump. If we are killed between it and the mark, this tells our installer from others:
    it keeps the host key of the machine that we jumped from."""
    return f"{mark(fleet_of(host), fleet_host(host).id)}\n{connector_of(host).reach().host_key}\n"


def mark_installer(host: Host) -> None:
    host_id = fleet_host(host).id
    connector_of(host).prove_for_wiping()
    output_of(
        machine_for(host),
        f"mkdir -p -m 0700 {DIRECTORY} && cat >{DIRECTORY}/mark.new && mv {DIRECTORY}/mark.new {DIRECTORY}/mark",
        stdin=mark(fleet_of(host), host_id),
        what="marking the installer",
    )
    run_of(host).state_of(host_id).forget("kexec")
