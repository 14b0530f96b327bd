"""Which VMID a new guest could have: a proposal. Only declared ones are ever made, so it goes into the definitions."""

import re
from typing import TYPE_CHECKING

from nixherd.errors import Usage
from nixherd.fleet.models import DEFINITIONS, Fleet, GuestType, VmidRange
from nixherd.fleet.schema import VMIDS
from nixherd.fleet.validate import ONLY_FOR

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


def usual_range(fleet: Fleet, kind: GuestType) -> str | None:
    """The range that guests of this kind are in: the one for them alone, else the first for any; None without any."""
    names = [each.name for each in fleet.ranges]
    reserved = [name for name in names if ONLY_FOR.get(name) is kind]
    return next(iter([*reserved, *(name for name in names if name not in ONLY_FOR)]), None)


def next_vmid(client: "Client", fleet: Fleet, name: str) -> int:
    """The lowest VMID of a range that is neither declared nor taken. Usage when all of them are."""
    return next_free(fleet, client, name)[0]


def next_free(fleet: Fleet, client: "Client | None", name: str) -> tuple[int, bool | None]:
    """The lowest VMID of a range that nobody has, and whether the hypervisor says so (None: it was not asked).

    Usage when there is none.
    """
    span = range_of(fleet, name)
    taken = {vm.vmid for vm in fleet.vms.values()} | ({fleet.template.vmid} if fleet.template else set())
    if client is not None:
        taken |= {row.vmid for row in client.resources()}
    for vmid in range(span.start, span.end + 1):
        # a guest that the token may not see is taken all the same
        if vmid not in taken and (client is None or client.is_free(vmid)):
            return vmid, None if client is None else True
    state = "undeclared" if client is None else "free"
    raise Usage(f"no VMID of {name} ({span.start} to {span.end}) is {state}; widen the range, or name another one")


def require_free(client: "Client | None", vmid: int) -> bool | None:
    """Whether nobody has this VMID, None where the hypervisor was not asked. Usage when somebody has it."""
    if client is None:
        return None
    row = next((row for row in client.resources() if row.vmid == vmid), None)
    if row is not None:
        raise Usage(
            f"--vmid {vmid}: {row.name or 'a guest'} on {row.node} has it; take another one (nixherd vm next-id)"
        )
    if not client.is_free(vmid):
        raise Usage(f"--vmid {vmid}: a guest that this token may not see has it; take another one (nixherd vm next-id)")
    return True
