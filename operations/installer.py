"""Takes a machine that SSH reaches into the NixOS installer, by kexec."""

from pyinfra import host
from pyinfra.api import operation

from facts.machine import Machine
from fleetwright.build import kexec_tarball
from fleetwright.errors import FleetError, FleetInvalid
from fleetwright.guard import mark, require_installable
from fleetwright.installation import obstacles
from fleetwright.jobs import DIRECTORY
from fleetwright.reach import Epoch
from operations.remote import run_towards
from operations.steps import Commands, connector_of, decide, do, evaluated, executing, fleet_host, session_of, shell

UPLOAD_DEADLINE = 1800.0  # seconds


@operation()
def boot() -> Commands:
    """Boot the installer on a machine that runs something else; one that runs NixOS already is left alone.

    The tarball is the flake's own `packages.x86_64-linux.kexec-installer`. It keeps the machine's host key and
    its authorized keys, so what was pinned before the jump is pinned after it.
    """
    yield from decide(host, _boot)


def _boot() -> Commands:
    session, host_id = session_of(host), fleet_host(host).id
    machine = host.get_fact(Machine)
    if machine is None and executing(host):
        raise FleetError(f"{host_id}: the machine did not say what runs on it")
    if machine and machine["variant"] == "installer":
        if machine["mark"] == mark(session, host_id):
            host.noop(f"{host_id} is in its installer")
            return
        if session.state_of(host_id).noted("kexec") != _note():
            raise FleetError(
                f"{host_id} is in an installer that this fleet did not boot, so its disk is not ours to wipe; "
                "boot it from its disk and run this again"
            )
        yield from do(host, f"mark the installer of {host_id} as ours", _mark)
        return
    if machine and machine["id"] == "nixos":
        host.noop(f"{host_id} runs NixOS already")
        return
    require_installable(session, host_id, "boot the installer on")
    if found := findings():
        raise FleetInvalid(found)
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
    host.log(f"copying {tarball.name} ({tarball.stat().st_size >> 20} MiB)")
    unpack = f"{sudo}rm -rf /root/kexec && {sudo}tar -C /root -xzf -"
    send = ["sh", "-c", 'exec "$@" < "$0"', str(tarball)]
    run_towards(host, lambda to: ([*send, *to.argv(unpack)], {}), UPLOAD_DEADLINE)
    session.state_of(host_id).note("kexec", _note())
    shell(host, f"{sudo}/root/kexec/run", what="the kexec installer")
    connector.drop()
    place = connector.reach(epochs=(Epoch.INSTALLER,), absent_ok=True)
    host.log(f"the installer answers at {place.address}")
    _mark()


def _note() -> str:
    """What is noted before the jump. If we are killed between it and the mark, this tells our installer from others:
    it keeps the host key of the machine that we jumped from."""
    return f"{mark(session_of(host), fleet_host(host).id)}\n{connector_of(host).reach().host_key}\n"


def _mark() -> None:
    session, host_id = session_of(host), fleet_host(host).id
    shell(
        host,
        f"mkdir -p -m 0700 {DIRECTORY} && cat >{DIRECTORY}/mark.new && mv {DIRECTORY}/mark.new {DIRECTORY}/mark",
        stdin=mark(session, host_id),
        what="marking the installer",
    )
    session.state_of(host_id).forget("kexec")
