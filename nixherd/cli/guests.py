"""Guests as people name them, as commands compare them, and as the definitions declare them."""

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from nixherd.base.errors import FleetError, Refused, Usage
from nixherd.base.names import DNS_NAME, format_size, is_a
from nixherd.cli.output import narrate
from nixherd.fleet.models import DEFINITIONS, Fleet, GuestType, Vm
from nixherd.nix.commands import nix_string
from nixherd.proxmox.answers import Presence, Resource
from nixherd.proxmox.config import VmConfig
from nixherd.proxmox.guest.differences import difference
from nixherd.proxmox.guest.identity import label
from nixherd.proxmox.steps import Note, Step

if TYPE_CHECKING:
    from nixherd.proxmox.client import Client


def names_of(fleet: Fleet) -> dict[str, Vm]:
    """Map every name of every guest, in lower case; a guest's name in the definitions goes before those of hosts."""
    names_of_hosts: dict[str, Vm] = {}
    for vm in fleet.vms.values():
        host = fleet.hosts.get(vm.host_id or "")
        for name in (host.id, host.hostname, host.ssh_alias) if host else ():
            if name:
                names_of_hosts.setdefault(name.lower(), vm)
    return names_of_hosts | {vm.name.lower(): vm for vm in fleet.vms.values()}


def guest_named(fleet: Fleet, text: str) -> Vm | int:
    """Find a guest by a name or VMID; a VMID that is not declared is returned. Usage for an unknown name."""
    if text.isascii() and text.isdigit() and len(text) < 20:
        vmid = int(text)
        return next((vm for vm in fleet.vms.values() if vm.vmid == vmid), vmid)
    names = names_of(fleet)
    if text.lower() in names:
        return names[text.lower()]
    near = difflib.get_close_matches(text.lower(), names, n=3)
    hint = f"the nearest are {', '.join(near)}" if near else f"it has {', '.join(sorted(names)) or 'none'}"
    raise Usage(f"{text}: no guest of {DEFINITIONS} has this name, host or alias; {hint}")


_UNSEEN = {
    Presence.ABSENT: "guest {0} does not exist",
    Presence.NOT_VISIBLE: "guest {0} is not visible: the VMID is taken, by a guest that this token may not see",
    Presence.UNKNOWN: "this token may see no guest {0}; whether one exists is unknown",
}


def placed_named(fleet: Fleet, text: str, client: "Client") -> Vm | Resource:
    """Find a guest that is declared, or that the server shows under this name or VMID. Usage unless it is one.

    One that is listed without a name (it is new, or the node's statistics are down) is asked itself.
    """

    def name_of(row: Resource) -> str:
        config = None if row.name else client.config(row.node, row.vmid, row.type)
        return (row.name or (config and config.name) or "").lower()

    try:
        guest = guest_named(fleet, text)
    except Usage as unknown:
        rows = [row for row in client.resources() if name_of(row) == text.lower()]
        if not rows:
            raise Usage(f"{unknown}; nor does a guest that this token may see") from None
        if len(rows) > 1:
            which = ", ".join(f"{row.vmid} on {row.node}" for row in sorted(rows, key=lambda row: row.vmid))
            raise Usage(f"several guests are called {text}: {which}; name one by its VMID") from None
        return rows[0]
    if isinstance(guest, Vm):
        return guest
    row = next((row for row in client.resources() if row.vmid == guest), None)
    if row is None:
        raise FleetError(_UNSEEN[client.presence(guest)].format(guest))
    return row


def declared(fleet: Fleet, text: str, verb: str) -> Vm:
    """Find a declared guest by a name or VMID. Refused for any other: only declared guests are changed."""
    guest = guest_named(fleet, text)
    if isinstance(guest, int):
        what = "the template" if fleet.template and fleet.template.vmid == guest else "not declared"
        raise Refused(f"vm {guest} is {what} in {DEFINITIONS}; refusing to {verb} it (only managed guests are changed)")
    return guest


def note_of(vm: Vm, step: Note) -> None:
    """Say on stderr what is known of a guest that is not a difference."""
    narrate([f"{label(vm)}: {step}"])


def left(vm: Vm, steps: Iterable[Step]) -> list[dict[str, Any]]:
    """Describe the steps that are left to do as `{"difference", "remedy", "interrupts"}`, without the notes."""
    steps = list(steps)
    for step in steps:
        if isinstance(step, Note):
            note_of(vm, step)
    return [asdict(difference(vm, step)) for step in steps if not isinstance(step, Note)]


def entry_of(
    fleet: Fleet, node: str, vmid: int, kind: GuestType, config: VmConfig, status: str | None, host: str | None = None
) -> tuple[str, str]:
    """Write the entry, and return it with its name: with `host` a managed guest of it, else an imported one, readonly.

    The VMID is added to a name that another guest's entry has, and to a hostname of a host in another guest.
    """
    from nixherd.nix.edit import attribute_name  # with it comes a parser, which few commands need

    name = guest_name(config.name or f"guest{vmid}")
    name = f"{name}-{vmid}" if name.lower() in map(str.lower, fleet.vms) else name
    homes = (fleet.hosts.get(vm.host_id or "") for vm in fleet.vms.values())
    housed = {home.hostname.lower() for home in homes if home}
    is_elsewhere = fleet.endpoint is None or node != fleet.endpoint.node
    attribute = attribute_name(name)
    cores = config.number("cores") if kind is GuestType.LXC else config.cores
    disk = config.root if kind is GuestType.LXC else config.boot_disk
    size = nix_string(format_size(disk.size)) if disk and disk.size else None
    place = nix_string(disk.storage) if disk else None
    common = {"vmid": str(vmid), "type": '"lxc"' if kind is GuestType.LXC else None}
    common["node"] = nix_string(node) if is_elsewhere else None
    if host is not None:
        machine = {"cores": str(cores or 1), "memory": str(config.memory or 512), "disk": size or '"1G"'}
        tags = f"[ {' '.join(map(nix_string, config.tags))} ]" if config.tags else None
        lines = {**common, **machine, "storage": place, "nixosConfig": nix_string(host), "tags": tags}
        return f"managed.{attribute} = {{\n{_lines(lines)}}};", name
    specs = {"cores": cores and str(cores), "memory": config.memory and str(config.memory)}
    specs |= {"disk": size, "storage": place}
    hostname = config.name or name
    lines = {
        **common,
        "hostname": nix_string(f"{hostname}-{vmid}" if hostname.lower() in housed else hostname),
        "status": nix_string(status) if status else None,
        "specs": "{\n" + _lines(specs, "    ") + "  }",
        "readonly": "true",
    }
    return f"imported.{attribute} = {{\n{_lines(lines)}}};", name


def guest_name(name: str) -> str:
    """Make a name that the definitions allow, the same where that is possible."""
    if is_a(DNS_NAME, name) and name[0].isalpha():
        return name
    kept = re.sub(r"[^A-Za-z0-9-]+", "-", name).strip("-") or "guest"
    return kept if kept[0].isalpha() else f"guest-{kept}"


def _lines(values: Mapping[str, Any], indent: str = "  ") -> str:
    return "".join(f"{indent}{key} = {value};\n" for key, value in values.items() if value)
