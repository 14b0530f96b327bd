"""An existing guest as its entry in vms/definitions.nix. Pure: text that evaluates to what the guest is."""

import re
from collections.abc import Collection

from nixherd.fields import DNS_NAME
from nixherd.models import GuestType
from nixherd.nix import nix_string
from nixherd.proxmox.config import VmConfig
from nixherd.sizes import format_size


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
    from nixherd.nix_edit import attribute_name  # with it comes a parser, which few commands need

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
    if DNS_NAME.fullmatch(name) and name[0].isalpha():
        return name
    kept = re.sub(r"[^A-Za-z0-9-]+", "-", name).strip("-") or "guest"
    return kept if kept[0].isalpha() else f"guest-{kept}"


def _lines(values: dict[str, str], indent: str = "  ") -> str:
    return "".join(f"{indent}{key} = {value};\n" for key, value in values.items())
