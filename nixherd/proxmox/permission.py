"""What the definitions let us do to a machine over SSH: the guard's other half, beside the API's policy."""

from collections.abc import Collection
from typing import TYPE_CHECKING

from nixherd.base.errors import NotVisible, Refused
from nixherd.fleet.models import DEFINITIONS, Fleet, GuestType
from nixherd.proxmox.guest.observe import find

if TYPE_CHECKING:  # it takes a tenth of a second: not for those who need no API
    from nixherd.proxmox.client import Client


def require_installable(fleet: Fleet, host_id: str, verb: str) -> None:
    """Refused unless the definitions let us wipe, install or reboot this machine.

    A guest must be a managed virtual machine and not readonly; another machine must still have a placeholder for
    its publicKey, which is how hosts.nix says that it is to be installed. FleetError where that is not known.
    """
    vm = fleet.vm_of(host_id)
    if vm is not None:
        where, refusing = f"vm {vm.vmid} ({vm.name})", f"refusing to {verb} {host_id}"
        if not vm.is_managed:
            raise Refused(f"{where} is {vm.attribute} in {DEFINITIONS}, never to be changed; {refusing}")
        if vm.type is not GuestType.QEMU:
            raise Refused(f"{where} is a container in {DEFINITIONS}; {refusing}")
        if vm.readonly:
            remedy = f"remove the flag from {vm.attribute} if you mean it"
            raise Refused(f"{where} is readonly in {DEFINITIONS}; {refusing}; {remedy}")
        return
    host = fleet.hosts.get(host_id)
    if host is None or host.public_key is not None:
        raise Refused(
            f"{host_id} has a publicKey in {fleet.file}, so it is installed already; refusing to {verb} it; "
            "put a placeholder there if it is to be installed anew"
        )
    host.require_read()  # its configuration may pin a key


def require_rebootable(fleet: Fleet, host_id: str) -> None:
    """Refused for a guest that is documented or readonly: whoever owns it reboots it."""
    vm = fleet.vm_of(host_id)
    if vm is not None and not vm.may_change:
        why = "readonly" if vm.readonly else "documented, never changed"
        raise Refused(
            f"vm {vm.vmid} ({vm.name}) is {why} in {DEFINITIONS}; refusing to reboot {host_id}, its owner does: "
            f"{fleet.hosts[host_id].how_to_reboot}"
        )


def require_no_declared_guest(fleet: Fleet, client: "Client", macs: Collection[str], host_id: str, verb: str) -> None:
    """Refused when a machine that no definition names has the MAC of one that is defined: a mistyped address.

    `macs` are those of the machine that answers, in lower case. Refused as well where that cannot be known, because a
    guest is not visible to the token. ApiError when the hypervisor cannot be asked.
    """
    hidden: list[NotVisible] = []
    for vm in fleet.vms.values():
        try:
            found = find(client, fleet, vm)
        except NotVisible as error:
            hidden.append(error)
            continue
        cards = {card.mac for card in found[1].nets.values()} if found else set()
        if cards & set(macs):
            raise Refused(
                f"the machine that answers for {host_id} is vm {vm.vmid} ({vm.name}) of {DEFINITIONS}; "
                f"refusing to {verb} it; correct the address"
            )
    if hidden:
        raise Refused(
            f"whether the machine that answers for {host_id} is one of {DEFINITIONS} is not known; "
            f"refusing to {verb} it: {'; '.join(map(str, hidden))}"
        )


def mark(fleet: Fleet, host_id: str) -> str:
    """What we write into an installer that we booted: whose it is. Another machine's mark is not ours."""
    vm = fleet.vm_of(host_id)
    return f"nixherd fleet={fleet.id} host={host_id}" + (f" vmid={vm.vmid}" if vm else "")
