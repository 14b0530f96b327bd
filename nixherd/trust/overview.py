"""docs/machines.md: the fleet's overview, generated between two markers; what people write around them stays."""

from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

from nixherd.base.errors import FleetError
from nixherd.base.sizes import format_size
from nixherd.fleet import tree
from nixherd.fleet.models import DEFINITIONS, Fleet, Host, Vm
from nixherd.ssh.keys import parse_public_key
from nixherd.trust import templating

BEGIN = f"<!-- nixherd: what follows is generated from hosts.nix and {DEFINITIONS} -->"
END = "<!-- nixherd: end -->"
_TITLE = "# Machines\n\n"


def render(fleet: Fleet, template: str | None = None) -> str:
    """The overview, the same bytes for the same fleet. `template` is a path below the fleet's directory, of its own.

    FleetError when that is useless.
    """
    values = partial(_values, fleet)
    if template is None:
        text = templating.render(resources.files("nixherd.trust").joinpath(_TEMPLATE).read_text(), values)
        return text.strip("\n") + "\n"
    path = Path(fleet.path) / template
    content = tree.read(Path(fleet.path), template)
    if content is None:
        raise FleetError(f"{path}: no such template")
    try:
        return templating.render_foreign(str(path), content.decode(), values).strip("\n") + "\n"
    except UnicodeDecodeError as error:
        raise FleetError(f"{path}: is not UTF-8 text ({error.reason})") from None


def document(old: bytes | None, overview: str, name: str) -> bytes:
    """The document with this overview between its markers, which are appended where there are none.

    FleetError, naming the document, when only one of them is there.
    """
    text = (old or _TITLE.encode()).decode(errors="surrogateescape")
    newline = "\r\n" if "\r\n" in text else "\n"
    block = f"{BEGIN}\n\n{overview}\n{END}".replace("\n", newline)
    if text.count(BEGIN) == 0 == text.count(END):
        gap = "" if text.endswith(newline * 2) or not text else newline * (1 if text.endswith(newline) else 2)
        return f"{text}{gap}{block}{newline}".encode(errors="surrogateescape")
    start, end = text.find(BEGIN), text.find(END)
    if text.count(BEGIN) != 1 or text.count(END) != 1 or end < start:
        raise FleetError(f"{name}: its two markers are not there once each, in their order; mend or remove them")
    return f"{text[:start]}{block}{text[end + len(END) :]}".encode(errors="surrogateescape")


_TEMPLATE = "templates/machines.md.j2"


def _values(fleet: Fleet) -> dict[str, Any]:
    def guest(host: Host) -> str:
        vm = fleet.vm_of(host.id)
        return f"{vm.vmid} ({vm.name})" if vm else ""

    return {
        "guest": guest,
        "fingerprint": _fingerprint,
        "spec": _spec,
        "cell": _cell,
        "hosts": sorted(fleet.hosts.values(), key=lambda host: host.id),
        "vms": sorted(fleet.vms.values(), key=lambda vm: vm.vmid),
        "ranges": sorted(fleet.ranges, key=lambda each: each.start),
        "template": fleet.template,
        "endpoint": fleet.endpoint,
    }


def _fingerprint(host: Host) -> str:
    return parse_public_key(host.public_key).fingerprint if host.public_key else "none yet"


def _spec(vm: Vm, name: str) -> str:
    """Cores, memory or disk: what a managed guest is given, or what its owner wrote down of an imported one."""
    if name not in ("cores", "memory", "disk"):
        raise ValueError(f"spec() knows cores, memory and disk, not {name}")
    value = getattr(vm, name)
    if value is None:
        value = vm.specs.get(name) if isinstance(vm.specs, dict) else None
        return f"{value} MiB" if name == "memory" and isinstance(value, int) else _cell(value)
    return f"{value} MiB" if name == "memory" else format_size(value) if name == "disk" else str(value)


def _cell(value: object) -> str:
    """Somebody's words in a table: one line, no column of their own."""
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_cell, value))
    return "" if value is None else " ".join(str(value).split()).replace("|", "\\|")
