"""Which VMID a new guest could have: a proposal. Only declared ones are ever made, so it goes into the definitions."""

import re
from typing import TYPE_CHECKING

from nixherd.errors import Usage
from nixherd.fleet.models import DEFINITIONS, Fleet, VmidRange
from nixherd.fleet.schema import VMIDS

if TYPE_CHECKING:
    from nixherd.proxmox.client import Client


_SPAN = re.compile(r"(\d{1,10})-(\d{1,10})", re.ASCII)


def range_of(fleet: Fleet, name: str) -> VmidRange:
    """The range that the definitions name so, or that two VMIDs are the ends of (`150-199`). Usage when neither."""
    if match := _SPAN.fullmatch(name):
        start, end = int(match[1]), int(match[2])
        if start not in VMIDS or end not in VMIDS:
            raise Usage(f"{name} is not a range of VMIDs, which are {VMIDS[0]} to {VMIDS[-1]}")
        if start > end:
            raise Usage(f"{name} ends before it starts; write {end}-{start}")
        return VmidRange(name, start, end)
    found = next((each for each in fleet.ranges if each.name == name), None)
    if found is None:
        known = ", ".join(each.name for each in fleet.ranges) or "none"
        raise Usage(f"{DEFINITIONS}: vmidRanges has no {name}; it has {known} (or name two VMIDs: 150 199)")
    return found


def next_vmid(client: "Client", fleet: Fleet, name: str) -> int:
    """The lowest VMID of a range that is neither declared nor taken. Usage when all of them are."""
    span = range_of(fleet, name)
    declared = {vm.vmid for vm in fleet.vms.values()} | ({fleet.template.vmid} if fleet.template else set())
    seen = {row.vmid for row in client.resources()}
    for vmid in range(span.start, span.end + 1):
        # a guest that the token may not see is taken all the same
        if vmid not in declared and vmid not in seen and client.is_free(vmid):
            return vmid
    raise Usage(f"no VMID of {name} ({span.start} to {span.end}) is free; widen the range, or name another one")
