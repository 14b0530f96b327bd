"""load_fleet(): hosts.nix and vms/definitions.nix, evaluated once and parsed into frozen values."""

import os
import re
from collections.abc import Mapping
from dataclasses import fields
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from nixherd.base.errors import Finding, FleetInvalid
from nixherd.base.files import expanded
from nixherd.fleet import models
from nixherd.fleet.evaluate import evaluate
from nixherd.fleet.models import HOSTS, NOTHING, Fleet, Host, Vm
from nixherd.fleet.schema import Place, fields_of, read
from nixherd.fleet.validate import find, is_host, kind_of
from nixherd.fleet.world import World, look


def require_directory(root: Path) -> None:
    """FleetInvalid unless the fleet's directory exists."""
    if not root.is_dir():
        raise FleetInvalid([f"{root}: no such directory; FLEET names the directory of the fleet's flake"])


def load_fleet(path: str | os.PathLike[str], world: World | None = None) -> Fleet:
    """The fleet that a flake's directory describes, with the warnings that it gives rise to.

    `world` is what is there, where somebody has looked.

    Raises FleetInvalid with every finding when the files say what cannot be (or are not there, or are no Nix),
    Refused when they are somebody else's, ProcessFailed without `nix`, DeadlineExceeded when it does
    not answer.
    """
    directory = expanded(path).absolute()
    require_directory(directory)
    if not (directory / HOSTS).is_file():
        raise FleetInvalid([f"{directory / HOSTS}: missing; FLEET names the directory that holds the fleet's {HOSTS}"])
    try:
        world = world or look(directory)
    except OSError as error:
        raise FleetInvalid([f"{directory}: cannot be read: {error.strerror}; see to its rights"]) from error
    hosts, definitions = evaluate(world, directory)
    findings = find(hosts, definitions)
    if not all(finding.is_warning for finding in findings):
        raise FleetInvalid(findings)
    return _fleet(directory, hosts, definitions or {}, findings)


# Parsing: what has been validated


def _fleet(directory: Path, hosts: Mapping[str, Any], definitions: Mapping[str, Any], warnings: list[Finding]) -> Fleet:
    parsed = {name: _host(name, entry) for name, entry in hosts.items() if is_host(name)}
    by_name = {str(name).lower(): host.id for host in parsed.values() for name in (host.id, host.ssh_alias)}
    by_name |= {host.hostname.lower(): host.id for host in parsed.values()}
    managed = {name: _managed(name, entry) for name, entry in (definitions.get("managed") or {}).items()}
    imported = {name: _imported(name, entry, by_name) for name, entry in (definitions.get("imported") or {}).items()}
    template, top = definitions.get("template"), read(Place.TOP, definitions)[0]
    return Fleet(
        path=str(directory),
        id=top["fleet"],
        hosts=MappingProxyType(parsed),
        vms=MappingProxyType({**managed, **imported}),
        endpoint=_endpoint(definitions.get("proxmox") or {}),
        template=_template(template) if template else None,
        ranges=tuple(_range(name, entry) for name, entry in (definitions.get("vmidRanges") or {}).items()),
        warnings=tuple(warnings),
    )


def _rest(entry: dict[str, Any]) -> Mapping[str, Any]:
    return MappingProxyType(entry) if entry else NOTHING


def _host(name: str, entry: Mapping[str, Any]) -> Host:
    values, rest = read(Place.HOST, entry)
    deploys = (field.name for field in fields_of(Place.HOST).values() if field.deploys)
    deployment = _rest({each: values[each] for each in deploys if values[each] is not None})
    return Host(id=name, **_parts(Host, values), deployment=deployment, extra=_rest(rest))


def _managed(name: str, entry: Mapping[str, Any]) -> Vm:
    values, rest = read(Place.MANAGED, entry, kind_of(entry))
    parts = {**_parts(Vm, values), "host_id": values["nixosConfig"], "settings": settings_of(values)}
    return Vm(name=name, origin=models.Origin.MANAGED, **parts, extra=_rest(rest))


def settings_of(values: Mapping[str, Any]) -> models.Settings:
    """A managed guest's settings, of the fields that its kind has."""
    container = models.ContainerSettings(**_parts(models.ContainerSettings, values))
    return models.Settings(**_parts(models.Settings, values), container=container)


def _imported(name: str, entry: Mapping[str, Any], by_name: Mapping[str, str]) -> Vm:
    """An imported guest is somebody's documentation: beside VMID and flag, only what can be understood is taken.

    It belongs to the host whose hostname it names; where it names none, to the one that its alias or name is of: a
    host without its guest would be a machine without its guard.
    """
    values, rest = read(Place.IMPORTED, entry)
    named = [each.lower() for each in (values["hostname"], values["sshAlias"], name) if each is not None]
    host_id = next((by_name[each] for each in named if each in by_name), None)
    return Vm(name=name, origin=models.Origin.IMPORTED, host_id=host_id, **_parts(Vm, values), extra=_rest(rest))


def _endpoint(entry: Mapping[str, Any]) -> models.Endpoint | None:
    values, _ = read(Place.PROXMOX, entry)
    return models.Endpoint(**_parts(models.Endpoint, values)) if values["host"] and values["node"] else None


def _template(entry: Mapping[str, Any]) -> models.Template:
    values, rest = read(Place.TEMPLATE, entry)
    name = values["name"] if isinstance(values["name"], str) else None
    return models.Template(**{**_parts(models.Template, values), "name": name}, extra=_rest(rest))


def _range(name: str, entry: Mapping[str, Any]) -> models.VmidRange:
    return models.VmidRange(name, **read(Place.RANGE, entry)[0])


def _parts(model: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a place's fields that a model has an attribute for: `sshAlias` is its `ssh_alias`."""
    attributes = {_attribute(name): value for name, value in values.items()}
    return {name: attributes[name] for name in _attributes(model) & attributes.keys()}


@cache
def _attributes(model: type) -> frozenset[str]:
    return frozenset(each.name for each in fields(model))


@cache
def _attribute(field: str) -> str:
    return re.sub("[A-Z]", lambda letter: f"_{letter[0].lower()}", field)
