"""Guests as people name them, as commands compare them, and as the definitions declare them."""

import difflib
import re
from collections.abc import Callable, Collection, Iterable
from typing import Any

from nixherd.cli.output import narrate
from nixherd.errors import FleetError, Refused, Usage
from nixherd.fleet.models import DEFINITIONS, Fleet, GuestType, Vm
from nixherd.names import DNS_NAME, is_a
from nixherd.nix.commands import nix_string
from nixherd.proxmox.answers import Presence, Resource
from nixherd.proxmox.config import VmConfig
from nixherd.proxmox.guest.identity import label
from nixherd.proxmox.steps import Cannot, Note, Step
from nixherd.sizes import format_size


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


def difference(vm: Vm, step: Step) -> dict[str, Any]:
    """A step that is left to do as `{"difference", "remedy", "interrupts"}`."""
    kind = "by hand" if isinstance(step, Cannot) else "left alone" if vm.readonly else "apply"
    return {"difference": str(step), "remedy": kind, "interrupts": step.interrupts}


def differing(vm: Vm, steps: Iterable[Step]) -> list[Step]:
    """The steps without those that only should be known, which are said here."""
    found = list(steps)
    narrate([f"{label(vm)}: {step}" for step in found if isinstance(step, Note)])
    return [step for step in found if not isinstance(step, Note)]


def entry_of(
    vmid: int,
    kind: GuestType,
    config: VmConfig,
    *,
    node: str | None = None,
    status: str | None = None,
    host: str | None = None,
    taken: Collection[str] = (),
    housed: Collection[str] = (),
) -> tuple[str, str]:
    """The entry's text and its name. With `host` it is a managed guest of that host, else an imported one, readonly.

    Names that are `taken`, in small letters, are other guests' entries: it is called by its VMID as well then.
    So is its hostname where it is among those that are `housed`, of hosts that live in other guests.
    """
    from nixherd.nix.edit import attribute_name  # with it comes a parser, which few commands need

    name = guest_name(config.name or f"guest{vmid}")
    name = f"{name}-{vmid}" if name.lower() in taken else name
    attribute = attribute_name(name)
    cores = config.number("cores") if kind is GuestType.LXC else config.cores
    disk = config.root if kind is GuestType.LXC else config.boot_disk
    common = {
        "vmid": str(vmid),
        **({"type": '"lxc"'} if kind is GuestType.LXC else {}),
        **({"node": nix_string(node)} if node else {}),
    }
    size = nix_string(format_size(disk.size)) if disk and disk.size else None
    place = nix_string(disk.storage) if disk else None
    if host is not None:
        lines = {
            **common,
            "cores": str(cores or 1),
            "memory": str(config.memory or 512),
            "disk": size or '"1G"',
            **({"storage": place} if place else {}),
            "nixosConfig": nix_string(host),
        }
        if config.tags:
            lines["tags"] = f"[ {' '.join(map(nix_string, config.tags))} ]"
        return f"managed.{attribute} = {{\n{_lines(lines)}}};", name
    hostname = config.name or name
    specs = {
        **({"cores": str(cores)} if cores else {}),
        **({"memory": str(config.memory)} if config.memory else {}),
        **({"disk": size} if size else {}),
        **({"storage": place} if place else {}),
    }
    lines = {
        **common,
        "hostname": nix_string(f"{hostname}-{vmid}" if hostname.lower() in housed else hostname),
        **({"status": nix_string(status)} if status else {}),
        "specs": "{\n" + _lines(specs, "    ") + "  }",
        "readonly": "true",
    }
    return f"imported.{attribute} = {{\n{_lines(lines)}}};", name


def guest_name(name: str) -> str:
    """The name itself where a guest may be called so in the definitions, else one that is near it."""
    if is_a(DNS_NAME, name) and name[0].isalpha():
        return name
    kept = re.sub(r"[^A-Za-z0-9-]+", "-", name).strip("-") or "guest"
    return kept if kept[0].isalpha() else f"guest-{kept}"


def _lines(values: dict[str, str], indent: str = "  ") -> str:
    return "".join(f"{indent}{key} = {value};\n" for key, value in values.items())
