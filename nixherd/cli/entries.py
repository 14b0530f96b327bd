"""An existing guest as its entry in vms/definitions.nix. Pure: text that evaluates to what the guest is."""

import re

from nixherd.models import GuestType
from nixherd.nix import nix_string
from nixherd.proxmox.models import VmConfig
from nixherd.sizes import format_size


def entry_of(
    vmid: int,
    kind: GuestType,
    config: VmConfig,
    *,
    node: str | None = None,
    status: str | None = None,
    host: str | None = None,
) -> tuple[str, str]:
    """The entry's text and its name. With `host` it is a managed guest of that host, else an imported one, readonly."""
    name = attribute_name(config.name or f"guest{vmid}")
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
        return f"managed.{name} = {{\n{_lines(lines)}}};", name
    specs = {
        **({"cores": str(cores)} if cores else {}),
        **({"memory": str(config.memory)} if config.memory else {}),
        **({"disk": size} if size else {}),
        **({"storage": place} if place else {}),
    }
    lines = {
        **common,
        "hostname": nix_string(config.name or name),
        **({"status": nix_string(status)} if status else {}),
        "specs": "{\n" + _lines(specs, "    ") + "  }",
        "readonly": "true",
    }
    return f"imported.{name} = {{\n{_lines(lines)}}};", name


def attribute_name(name: str) -> str:
    """A name that needs no quotes in Nix and is one for a guest."""
    kept = re.sub(r"[^A-Za-z0-9-]+", "-", name).strip("-") or "guest"
    return kept if kept[0].isalpha() else f"guest-{kept}"


def _lines(values: dict[str, str], indent: str = "  ") -> str:
    return "".join(f"{indent}{key} = {value};\n" for key, value in values.items())
