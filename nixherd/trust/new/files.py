"""A new host's own files, from templates, and its entries in hosts.nix and vms/definitions.nix."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from nixherd.fleet.evaluate import ABSENT, Leaf
from nixherd.fleet.models import DEFINITIONS, HOSTS
from nixherd.nix.commands import nix_string
from nixherd.nix.edit import CannotEdit, NixText, attribute_name
from nixherd.trust import templating
from nixherd.trust.new.host import PLACEHOLDER, Kind, NewHost

_TEMPLATES = Path(__file__).parents[1] / "templates"


def render(host: NewHost) -> dict[str, bytes]:
    """Their contents, by path below the fleet's directory."""
    templates = {name: (_TEMPLATES / f"{name}.j2").read_text() for name in file_names(host)}
    values = partial(_values, host)
    return {f"{host.directory}/{name}": templating.render(text, values).encode() for name, text in templates.items()}


def file_names(host: NewHost) -> tuple[str, ...]:
    """The files that a host of this kind has."""
    nixos = ("configuration.nix", "hardware-configuration.nix") if host.is_nixos else ()
    disk = ("disko.nix",) if host.kind.has_disk else ()
    return (*nixos, *disk, *(("home.nix",) if host.home else ()))


def _values(host: NewHost) -> Mapping[str, Any]:
    return {
        "host": host,
        "summary": summary(host),
        "size": host.guest.size.name if host.guest else "",
        "attribute": attribute_name(host.id),
        "device": nix_string(host.machine.device),
        "user": attribute_name(host.user),
        "secrets": [attribute_name(name) for name in host.secrets],
    }


def summary(host: NewHost) -> str:
    """Return one line that says what the host is."""
    words = {
        Kind.VM: "a virtual machine",
        Kind.CONTAINER: "a container",
        Kind.METAL: "a machine",
        Kind.HOME: "a home on another system",
    }
    number = f", VMID {host.guest.vmid}" if host.guest else ""
    return f"{host.id}: {host.purpose or words[host.kind]}{number}."


@dataclass(frozen=True, slots=True)
class Written:
    """An expression as it is to be written, and what it is to evaluate to."""

    text: str
    value: Any


@dataclass(frozen=True, slots=True)
class Entry:
    """A file's new content, and by attribute what its evaluation is to differ in."""

    path: str
    content: bytes
    intended: Mapping[Leaf, Any]


def host_entry(source: bytes, host: NewHost, *, hosts: int) -> Entry:
    """hosts.nix with the host, which has so many others now. CannotEdit names the lines to add by hand."""
    return _added(HOSTS, source, (host.id,), _host_values(host), summary(host), empty=not hosts)


def guest_entry(source: bytes, host: NewHost, *, managed: int | None) -> Entry:
    """vms/definitions.nix with the guest. `managed` is how many there are now, None without such an attribute."""
    values = _guest_values(host)
    if managed is None:
        lines = (f"  {line}" for line in _entry_lines(host.id, values))
        text = NixText(DEFINITIONS, source).add(("managed",), ["{", *lines, "}"])
        return Entry(DEFINITIONS, text, _leaves((DEFINITIONS, "managed", host.id), values))
    return _added(DEFINITIONS, source, ("managed", host.id), values, "", empty=not managed)


def _added(
    name: str, source: bytes, path: tuple[str, ...], values: Mapping[str, Any], comment: str, *, empty: bool
) -> Entry:
    lines = _entry_lines(path[-1], values)
    try:
        first, *rest = lines
        value = [first.partition(" = ")[2], *rest[:-1], rest[-1].removesuffix(";")]
        content = NixText(name, source).add(path, value, comment=comment)
    except CannotEdit as error:
        raise ByHand(f"{error}; nothing was changed, add the lines above by hand", name, path, lines) from error
    emptied = {(name, *path[:-1]): ABSENT} if empty else {}
    return Entry(name, content, {**emptied, **_leaves((name, *path), values)})


class ByHand(CannotEdit):
    """A file is written in a way that is not edited here. `lines` are what to add to its attribute `path`."""

    def __init__(self, message: str, name: str, path: tuple[str, ...], lines: Sequence[str]) -> None:
        self.lines = tuple(lines)
        self.place = f"{name}{''.join(f': {part}' for part in path[:-1])}"
        super().__init__(message)


def _host_values(host: NewHost) -> dict[str, Any]:
    files = f"./{host.directory}"
    lines = list(host.keys.lines)
    written = Written(host.keys.expression, lines) if host.keys.expression else lines
    entry: dict[str, Any] = {
        "hostname": host.id,
        "sshAlias": host.alias,
        "user": host.user,
        "homeDirectory": host.home_directory,
        "publicKey": PLACEHOLDER,
        "authorizedKeys": written,
    }
    if host.sudo_passwordless:
        entry["sudoPasswordless"] = True
    if host.is_nixos:
        entry["configurationFile"] = _nix_path(f"{files}/configuration.nix")
    if host.home:
        entry["homeFile"] = _nix_path(f"{files}/home.nix")
    return entry


def _nix_path(path: str) -> Written:
    return Written(path, ("path", path.removeprefix(".")))


def _guest_values(host: NewHost) -> dict[str, Any]:
    guest = host.guest
    assert guest is not None
    entry: dict[str, Any] = {"vmid": guest.vmid}
    if guest.size.kind.value != "qemu":
        entry["type"] = guest.size.kind.value
    entry |= {"cores": guest.cores, "memory": guest.memory, "disk": guest.disk}
    optional = {name: getattr(guest, name) for name in ("storage", "node", "pool", "archive")}
    optional["pci"] = list(guest.pci) or None
    entry |= {name: value for name, value in optional.items() if value is not None}
    entry |= guest.size.settings
    entry["nixosConfig"] = host.id
    if host.purpose:
        entry["purpose"] = host.purpose
    return entry


def _entry_lines(name: str, values: Mapping[str, Any]) -> list[str]:
    """`name = { … };`, a line each."""
    found = [f"{attribute_name(name)} = {{"]
    for key, value in values.items():
        if isinstance(value, Written):
            found.append(f"  {attribute_name(key)} = {value.text};")
        elif isinstance(value, Mapping):
            found += [f"  {line}" for line in _entry_lines(key, value)]
        elif isinstance(value, int):  # a number or a truth value, which Nix writes as JSON does
            found.append(f"  {attribute_name(key)} = {json.dumps(value)};")
        elif isinstance(value, str):
            found.append(f"  {attribute_name(key)} = {nix_string(value)};")
        elif not value:
            found.append(f"  {attribute_name(key)} = [];")
        else:
            found += [f"  {attribute_name(key)} = [", *(f"    {nix_string(each)}" for each in value), "  ];"]
    return [*found, "};"]


def _leaves(path: Leaf, values: Mapping[str, Any]) -> dict[Leaf, Any]:
    found: dict[Leaf, Any] = {}
    for key, value in values.items():
        if isinstance(value, Written):
            found[(*path, key)] = value.value
        elif isinstance(value, Mapping):
            found |= _leaves((*path, key), value)
        else:
            found[(*path, key)] = value
    return found
