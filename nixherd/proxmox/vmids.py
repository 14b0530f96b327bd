"""Which VMID a new guest could have: a proposal. Only declared ones are ever made, so it goes into the definitions."""

from typing import TYPE_CHECKING

from nixherd.errors import Usage
from nixherd.models import Fleet, VmidRange
from nixherd.proxmox.policy import DEFINITIONS

if TYPE_CHECKING:
    from nixherd.proxmox.client import Client


def named_range(fleet: Fleet, name: str) -> VmidRange:
    """Usage when the definitions name no such range."""
    found = next((each for each in fleet.ranges if each.name == name), None)
    if found is None:
        known = ", ".join(each.name for each in fleet.ranges) or "none"
        raise Usage(f"{DEFINITIONS}: vmidRanges has no {name}; it has {known}")
    return found


def next_vmid(client: "Client", fleet: Fleet, name: str) -> int:
    """The lowest VMID of a named range that is neither declared nor taken. Usage when all of them are."""
    span = named_range(fleet, name)
    declared = {vm.vmid for vm in fleet.vms.values()} | ({fleet.template.vmid} if fleet.template else set())
    seen = {row.vmid for row in client.resources()}
    for vmid in range(span.start, span.end + 1):
        # a guest that the token may not see is taken all the same
        if vmid not in declared and vmid not in seen and client.is_free(vmid):
            return vmid
    raise Usage(f"{DEFINITIONS}: no VMID of {name} ({span.start} to {span.end}) is free; widen the range")
