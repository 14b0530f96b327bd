"""load_fleet(): hosts.nix and vms/definitions.nix, evaluated once and parsed into frozen values."""

import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from nixherd.errors import FleetInvalid
from nixherd.fleet_eval import evaluate
from nixherd.models import NOTHING, Endpoint, Fleet, GuestType, Host, Origin, Template, Vm, VmidRange
from nixherd.settings import take_settings
from nixherd.sizes import parse_size
from nixherd.validate import (
    DEFAULT_FLEET_ID,
    DEFAULT_PORT,
    HOSTS,
    find_errors,
    is_placeholder,
    parse_fingerprint,
)
from nixherd.world import World, look


def load_fleet(path: str | os.PathLike[str], world: World | None = None) -> Fleet:
    """The fleet that a flake's directory describes; `world` is what is there, where somebody has looked.

    Raises FleetInvalid with every finding when the files say what cannot be (or are not there, or are no Nix),
    Refused when they are somebody else's, ProcessFailed when there is no `nix` to ask, DeadlineExceeded when it does
    not answer.
    """
    directory = Path(path).expanduser().absolute()
    if not directory.is_dir():
        raise FleetInvalid([f"{directory}: no such directory; FLEET names the directory of the fleet's flake"])
    if not (directory / HOSTS).is_file():
        raise FleetInvalid([f"{directory / HOSTS}: missing; FLEET names the directory that holds the fleet's {HOSTS}"])
    try:
        world = world or look(directory)
    except OSError as error:
        raise FleetInvalid([f"{directory}: cannot be read: {error.strerror}; see to its rights"]) from error
    hosts, definitions = evaluate(world, directory)
    if findings := find_errors(hosts, definitions):
        raise FleetInvalid(findings)
    return _fleet(directory, hosts, definitions or {})


# Parsing: what has been validated


def _fleet(directory: Path, hosts: Mapping[str, Any], definitions: Mapping[str, Any]) -> Fleet:
    parsed = {name: _host(name, dict(entry)) for name, entry in hosts.items()}
    by_name = {str(name).lower(): host.id for host in parsed.values() for name in (host.id, host.ssh_alias)}
    by_name |= {host.hostname.lower(): host.id for host in parsed.values()}
    managed = {name: _managed(name, dict(entry)) for name, entry in (definitions.get("managed") or {}).items()}
    imported = {
        name: _imported(name, dict(entry), by_name) for name, entry in (definitions.get("imported") or {}).items()
    }
    template = definitions.get("template")
    return Fleet(
        path=str(directory),
        id=definitions.get("fleet") or DEFAULT_FLEET_ID,
        hosts=MappingProxyType(parsed),
        vms=MappingProxyType({**managed, **imported}),
        endpoint=_endpoint(definitions.get("proxmox") or {}),
        template=_template(dict(template)) if template else None,
        ranges=tuple(
            VmidRange(name, entry["start"], entry["end"])
            for name, entry in (definitions.get("vmidRanges") or {}).items()
        ),
    )


def _rest(entry: dict[str, Any]) -> Mapping[str, Any]:
    return MappingProxyType(entry) if entry else NOTHING


def _host(name: str, entry: dict[str, Any]) -> Host:
    take = entry.pop
    key = take("publicKey", None)
    return Host(
        id=name,
        hostname=take("hostname"),
        ssh_alias=take("sshAlias", None),
        user=take("user"),
        home_directory=take("homeDirectory", None),
        public_key=None if is_placeholder(key) else key.strip(),
        authorized_keys=tuple(line.strip() for line in take("authorizedKeys", None) or ()),
        configuration_file=take("configurationFile", None),
        home_file=take("homeFile", None),
        ssh_key_name=take("sshKeyName", None),
        initial_hashed_password=take("initialHashedPassword", None),
        sudo_passwordless=take("sudoPasswordless", None),
        extra=_rest(entry),
    )


def _managed(name: str, entry: dict[str, Any]) -> Vm:
    take = entry.pop
    return Vm(
        name=name,
        vmid=take("vmid"),
        origin=Origin.MANAGED,
        readonly=take("readonly", False),
        type=GuestType(take("type", None) or GuestType.QEMU),
        host_id=take("nixosConfig"),
        cores=take("cores"),
        memory=take("memory"),
        disk=parse_size(take("disk")),
        storage=take("storage", None),
        node=take("node", None),
        tags=tuple(take("tags", None) or ()),
        settings=take_settings(entry),
        extra=_rest(entry),
    )


def _imported(name: str, entry: dict[str, Any], by_name: Mapping[str, str]) -> Vm:
    """An imported guest is somebody's documentation: beside VMID and flag, only what can be understood is taken.

    It belongs to the host whose hostname it names; where it names none, to the one that its alias or name is of: a
    host without its guest would be a machine without its guard.
    """
    tags, named = entry.get("tags"), (entry.get("hostname"), entry.get("sshAlias"), name)
    node, storage = entry.get("node"), entry.get("storage")
    is_container = entry.get("type") == GuestType.LXC
    return Vm(
        name=name,
        vmid=entry.pop("vmid"),
        origin=Origin.IMPORTED,
        readonly=entry.pop("readonly", True),
        type=GuestType.LXC if is_container else GuestType.QEMU,
        host_id=next((by_name[str(each).lower()] for each in named if str(each).lower() in by_name), None),
        storage=storage if isinstance(storage, str) else None,
        node=node if isinstance(node, str) else None,
        tags=tuple(tag for tag in tags if isinstance(tag, str)) if isinstance(tags, list) else (),
        extra=_rest(entry),
    )


def _endpoint(entry: Mapping[str, Any]) -> Endpoint | None:
    if not entry.get("host") or not entry.get("node"):
        return None
    fingerprint = entry.get("fingerprint")
    return Endpoint(
        host=entry["host"],
        node=entry["node"],
        default_storage=entry.get("defaultStorage"),
        backup_storage=entry.get("backupStorage"),
        port=entry.get("port") or DEFAULT_PORT,
        fingerprint=parse_fingerprint(fingerprint) if fingerprint else None,
        ca_file=entry.get("caFile"),
    )


def _template(entry: dict[str, Any]) -> Template:
    name = entry.pop("name", None)
    return Template(vmid=entry.pop("vmid"), name=name if isinstance(name, str) else None, extra=_rest(entry))
