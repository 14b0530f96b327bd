"""Takes a machine that SSH reaches into the NixOS installer, by kexec."""

import shlex

from pyinfra import host
from pyinfra.api import operation

from nixherd.errors import FleetError, FleetInvalid, Refused
from nixherd.install.permission import mark, require_installable
from nixherd.install.requirements import obstacles
from nixherd.locate.reach import Epoch
from nixherd.nix.builder import kexec_tarball
from nixherd.ssh.transient_unit import DIRECTORY
from operations.machine import is_installed, machine_of, require_still_installable, require_the_guest
from operations.remote import copy_towards
from operations.steps import Commands, connector_of, decide, do, evaluated, fleet_host, session_of, shell

UPLOAD_DEADLINE = 1800.0  # seconds
NEEDED = ("tar", "gzip", "cpio", "setsid")  # by the tarball's script
BOOT = "boot the installer on"


@operation()
def boot() -> Commands:
    """Boot the installer on a machine that runs something else; one that runs NixOS already is left alone.

    The tarball is the flake's own `packages.x86_64-linux.kexec-installer`. It keeps the machine's host key and
    its authorized keys, so what was pinned before the jump is pinned after it.
    """
    yield from decide(host, _boot)


def _boot() -> Commands:
    session, host_id = session_of(host), fleet_host(host).id
    machine = machine_of(host, BOOT)
    if machine and machine["variant"] == "installer":
        if machine["mark"] == mark(session.fleet, host_id):
            host.noop(f"{host_id} is in its installer")
            return
        if session.state_of(host_id).noted("kexec") != _note():
            raise Refused(
                f"{host_id} is in an installer that this fleet did not boot, so its disk is not ours to wipe; "
                "boot it from its disk and run this again"
            )
        require_the_guest(host)
        yield from do(host, f"mark the installer of {host_id} as ours", _mark)
        return
    if is_installed(machine):
        host.noop(f"{host_id} runs NixOS already")
        return
    require_installable(session.fleet, host_id, BOOT)
    if found := findings():
        raise FleetInvalid(found)
    if machine:
        require_the_guest(host)
    yield from do(host, f"boot the NixOS installer on {host_id} by kexec", _kexec)


def findings() -> list[str]:
    """What of this side would stop the installation of this host half-way."""
    data = host.data
    return list(
        obstacles(session_of(host), evaluated(host), data.get("extra_files"), data.get("hardware_configuration"))
    )


def _kexec() -> None:
    session, host_id, connector = session_of(host), fleet_host(host).id, connector_of(host)
    tarball = kexec_tarball(session)
    sudo = "" if connector.destination().user == "root" else "sudo -n "
    require_still_installable(host, BOOT)
    shell(host, f"{sudo}true", what=f"becoming root (`{sudo}true`)")
    missing = shell(host, f"for p in {' '.join(NEEDED)}; do command -v $p >/dev/null || echo $p; done").split()
    if missing:
        raise FleetError(f"{host_id} lacks {', '.join(missing)}, which the installer needs; install it in the template")
    host.log(f"copying {tarball.name} ({tarball.stat().st_size >> 20} MiB)")
    # Into a place of its own: what another run left, or still sends, is not what is run.
    unpack = f"d=$({sudo}mktemp -d /root/kexec.XXXXXX) && {sudo}tar -C $d -xzf - && echo $d"
    send = ["sh", "-c", 'exec "$@" < "$0"', str(tarball)]
    place = copy_towards(host, lambda to: ([*send, *to.argv(unpack)], {}), UPLOAD_DEADLINE).stdout.strip()
    session.state_of(host_id).note("kexec", _note())
    shell(host, f"{sudo}setsid --wait {shlex.quote(place)}/kexec/run", what="the kexec installer")
    connector.drop()
    address = connector.reach(epochs=(Epoch.INSTALLER,), absent_ok=True).address
    host.log(f"the installer answers at {address}")
    _mark()


def _note() -> str:
    """What is noted before the jump. If we are killed between it and the mark, this tells our installer from others:
    it keeps the host key of the machine that we jumped from."""
    return f"{mark(session_of(host).fleet, fleet_host(host).id)}\n{connector_of(host).reach().host_key}\n"


def _mark() -> None:
    session, host_id = session_of(host), fleet_host(host).id
    connector_of(host).prove_for_wiping()
    shell(
        host,
        f"mkdir -p -m 0700 {DIRECTORY} && cat >{DIRECTORY}/mark.new && mv {DIRECTORY}/mark.new {DIRECTORY}/mark",
        stdin=mark(session.fleet, host_id),
        what="marking the installer",
    )
    session.state_of(host_id).forget("kexec")
