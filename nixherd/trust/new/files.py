"""A new host's own files, from templates (`nixherd/trust/templates/`)."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from nixherd import templating
from nixherd.nix.commands import nix_string
from nixherd.nix.edit import attribute_name
from nixherd.trust.new.host import Kind, NewHost

_TEMPLATES = Path(__file__).parents[1] / "templates"


def render(host: NewHost) -> dict[str, bytes]:
    """Their contents, by path below the fleet's directory."""
    values = partial(_values, host)
    return {
        f"{host.directory}/{name}": templating.render((_TEMPLATES / f"{name}.j2").read_text(), values).encode()
        for name in names(host)
    }


def names(host: NewHost) -> tuple[str, ...]:
    """The files that a host of this kind has."""
    nixos = ("configuration.nix", "hardware-configuration.nix") if host.is_nixos else ()
    disk = ("disko.nix",) if host.kind.has_disk else ()
    return (*nixos, *disk, *(("home.nix",) if host.home else ()))


def _values(host: NewHost) -> Mapping[str, Any]:
    return {
        "id": host.id,
        "attribute": attribute_name(host.id),
        "about": about(host),
        "kind": str(host.kind),
        "size": host.guest.size.name if host.guest else "",
        "disk": host.kind.has_disk,
        "firmware": host.machine.firmware,
        "device": nix_string(host.machine.device),
        "user": attribute_name(host.user),
        "login": host.user,
        "up": host.up,
        "secrets": [attribute_name(name) for name in host.secrets],
        "root_keys": host.root_keys,
        "imports": host.home_imports,
        "state_version": host.state_version,
    }


def about(host: NewHost) -> str:
    """What it is, in a line."""
    words = {
        Kind.VM: "a virtual machine",
        Kind.CONTAINER: "a container",
        Kind.METAL: "a machine",
        Kind.HOME: "a home on another system",
    }
    number = f", VMID {host.guest.vmid}" if host.guest else ""
    return f"{host.id}: {host.purpose or words[host.kind]}{number}."
