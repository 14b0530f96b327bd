"""What the definitions let us do to a machine over SSH: the guard's other half, beside the API's policy."""

from fleetwright.errors import Refused
from fleetwright.session import Session


def require_installable(session: Session, host_id: str, verb: str) -> None:
    """Refused unless the definitions, as they are now, let us wipe, install or reboot this machine.

    A VM must be managed and not readonly; another machine must still have a placeholder for its publicKey,
    which is how hosts.nix says that it is to be installed.
    """
    vm = session.vm(host_id)
    if vm is not None:
        if not vm.is_managed:
            raise Refused(
                f"vm {vm.vmid} ({vm.name}) is {vm.attribute} in vms/definitions.nix, never to be changed; "
                f"refusing to {verb} {host_id}"
            )
        if vm.readonly:
            raise Refused(
                f"vm {vm.vmid} ({vm.name}) is readonly in vms/definitions.nix; refusing to {verb} {host_id}; "
                f"remove the flag from {vm.attribute} if you mean it"
            )
    elif session.host(host_id).public_key is not None:
        raise Refused(
            f"{host_id} has a publicKey in hosts.nix, so it is installed already; refusing to {verb} it; "
            "put a placeholder there if it is to be installed anew"
        )


def mark(session: Session, host_id: str) -> str:
    """What we write into an installer that we booted: whose it is. Another machine's mark is not ours."""
    vm = session.vm(host_id)
    return f"fleetwright fleet={session.fleet.id} host={host_id}" + (f" vmid={vm.vmid}" if vm else "")
