"""What our operations ask of a machine before they touch it."""

from pyinfra.api.host import Host

from facts.machine import Machine, MachineState
from nixherd.errors import FleetError, Refused
from nixherd.fleet.load import load_fleet
from nixherd.install.permission import mark, require_installable, require_no_declared_guest
from operations.steps import connector_of, executing, fleet_host, session_of

ANSWER_DEADLINE = 60  # seconds for a machine to say what runs on it


def machine_of(host: Host, verb: str | None = None) -> MachineState | None:
    """What the machine says of itself; None only while planning for one that is not there. FleetError otherwise.

    `verb` is what an installation is about to do to it: in such a run a clone and an installer are looked at as well.
    One that does not answer is not waited for where the definitions do not let us `verb` it: that is Refused at once.
    """
    connector = connector_of(host)
    connector.installs = connector.installs or verb is not None
    if executing(host):
        if verb and not connector.connected:
            require_installable(session_of(host).fleet, fleet_host(host).id, verb)
        connector.reach()  # here its reason is one line of this host; in a fact, pyinfra shows a traceback
    # A fact's failure of the last host would be a traceback; its None is an error here, in one line.
    machine: MachineState | None = host.get_fact(Machine, _timeout=ANSWER_DEADLINE, _ignore_errors=True)
    if machine is None and (executing(host) or connector.connected):
        raise FleetError(f"{fleet_host(host).id}: the machine did not say what runs on it; run this again")
    return machine


def is_installed(machine: MachineState | None) -> bool:
    """Whether an installed NixOS answers; whatever it calls itself, it has a current system and is no installer."""
    return machine is not None and machine["current_system"] is not None and machine["variant"] != "installer"


def require_our_installer(host: Host, machine: MachineState) -> None:
    """Refused unless this is the installer that this fleet booted for this very host."""
    session, host_id = session_of(host), fleet_host(host).id
    if machine["variant"] != "installer" or machine["mark"] != mark(session.fleet, host_id):
        raise Refused(
            f"{host_id} is not in an installer that this fleet booted for it; refusing to touch its disk; "
            "run deploys/install.py from its start"
        )


def require_the_guest(host: Host) -> None:
    """Refused unless root of the guest that was asked is root where we are; planning writes nothing anywhere."""
    if executing(host):
        connector_of(host).prove_for_wiping()


def require_still_installable(host: Host, verb: str) -> None:
    """Refused unless the definitions, as they are at this moment, let us do this to the machine that answers.

    A guest proves once more, on this connection, that it is the one: by what its root alone can have.
    """
    session, host_id = session_of(host), fleet_host(host).id
    fleet = load_fleet(session.fleet.path)
    require_installable(fleet, host_id, verb)
    machine = machine_of(host)
    if machine and fleet.vm_of(host_id) is None and fleet.vms:
        require_no_declared_guest(fleet, session.client, machine["macs"], host_id, verb)
    connector_of(host).prove_for_wiping()
