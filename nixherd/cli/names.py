"""What people call a guest: by its name in the definitions, its host's id, hostname or alias, or its VMID."""

import difflib
from collections.abc import Callable, Iterable

from nixherd.errors import FleetError, Refused, Usage
from nixherd.models import DEFINITIONS, Fleet, Vm
from nixherd.proxmox.answers import Presence, Resource


def names_of(fleet: Fleet) -> dict[str, Vm]:
    """Every name of every guest, in lower case; the definitions' own names come first."""
    found: dict[str, Vm] = {}
    for vm in fleet.vms.values():
        host = fleet.hosts.get(vm.host_id or "")
        names = (vm.name, *((host.id, host.hostname, host.ssh_alias) if host else ()))
        for name in names:
            if name:
                found.setdefault(name.lower(), vm)
    return {vm.name.lower(): vm for vm in fleet.vms.values()} | found


def guest_named(fleet: Fleet, text: str) -> Vm | int:
    """The guest that is meant; its VMID alone where the definitions do not have it. Usage when nobody is."""
    if text.isascii() and text.isdigit() and len(text) < 20:
        vmid = int(text)
        return next((vm for vm in fleet.vms.values() if vm.vmid == vmid), vmid)
    names = names_of(fleet)
    if text.lower() in names:
        return names[text.lower()]
    near = difflib.get_close_matches(text.lower(), names, n=3)
    hint = f"the nearest are {', '.join(near)}" if near else f"there are {', '.join(sorted(names)) or 'none'}"
    raise Usage(f"{text}: no guest of {DEFINITIONS} has this name, host or alias; {hint}")


_UNSEEN = {
    Presence.ABSENT: "there is no guest {0}",
    Presence.NOT_VISIBLE: "guest {0} is not visible: the VMID is taken, by a guest that this token may not see",
    Presence.UNKNOWN: "there is no guest {0} that this token may see; whether there is one is unknown",
}


def placed_named(
    fleet: Fleet,
    text: str,
    resources: Callable[[], Iterable[Resource]],
    name_of: Callable[[Resource], str | None],
    presence: Callable[[int], Presence] = lambda vmid: Presence.UNKNOWN,
) -> Vm | Resource:
    """The guest that is meant for looking at: declared, or one that the server shows under this name or VMID.

    `resources` asks for the guests that the token may see, `name_of` for the name of one that is shown without (it is
    new, or the node's statistics are down), `presence` what a VMID is that is none of theirs. Usage when there is none,
    or several are called so.
    """
    try:
        wanted: Vm | int | None = guest_named(fleet, text)
    except Usage as error:
        wanted, unknown = None, error
    if isinstance(wanted, Vm):
        return wanted
    rows = list(resources())
    if wanted is not None:
        found = [row for row in rows if row.vmid == wanted]
        if not found:
            raise FleetError(_UNSEEN[presence(wanted)].format(wanted))
        return found[0]
    found = [row for row in rows if (row.name or name_of(row) or "").lower() == text.lower()]
    if len(found) > 1:
        which = ", ".join(f"{row.vmid} on {row.node}" for row in sorted(found, key=lambda row: row.vmid))
        raise Usage(f"several guests are called {text}: {which}; name one by its VMID")
    if not found:
        raise Usage(f"{unknown}; nor does a guest that this token may see")
    return found[0]


def declared(fleet: Fleet, text: str, verb: str) -> Vm:
    """The declared guest that is meant. Refused for any other: only what is declared is ever changed."""
    found = guest_named(fleet, text)
    if isinstance(found, int):
        what = "the template" if fleet.template and fleet.template.vmid == found else "not declared"
        raise Refused(f"vm {found} is {what} in {DEFINITIONS}; refusing to {verb} it (only managed guests are changed)")
    return found
