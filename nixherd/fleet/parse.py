"""Validated entries of the fleet's files and its flake become the values of `nixherd.fleet.models`. Pure."""

import re
from collections.abc import Mapping
from dataclasses import fields, replace
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from nixherd.base.errors import Finding
from nixherd.fleet import models
from nixherd.fleet.models import NOTHING, Configuration, Fleet, Host, Vm
from nixherd.fleet.schema import Place, fields_of, read
from nixherd.fleet.validate import kind_of


def fleet_of(
    directory: Path,
    hosts: Mapping[str, Mapping[str, Any]],
    definitions: Mapping[str, Any],
    warnings: list[Finding],
    configurations: Mapping[str, Configuration] = NOTHING,
    unread: str | None = None,
) -> Fleet:
    """The fleet of entries by their hosts' ids, and of vms/definitions.nix.

    `configurations` are the flake's of hosts that do not say by files what they are; `unread` is why what those say
    is not known, where they may say more.
    """
    parsed = {name: host_of(name, entry, configurations.get(name), unread) for name, entry in hosts.items()}
    by_name = {str(name).lower(): host.id for host in parsed.values() for name in (host.id, host.ssh_alias)}
    by_name |= {host.hostname.lower(): host.id for host in sorted(parsed.values(), key=lambda host: host.is_nixos)}
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


def host_of(
    name: str, entry: Mapping[str, Any], configuration: Configuration | None = None, unread: str | None = None
) -> Host:
    """A host of its entry. What a flake calls USER@MACHINE says both, as far as the entry does not."""
    values, rest = read(Place.HOST, entry)
    user, at, machine = (configuration.name if configuration else name).partition("@")
    values["hostname"] = values["hostname"] or (machine if at else user)
    values["user"] = values["user"] or (user if at else "")
    deploys = (field.name for field in fields_of(Place.HOST).values() if field.deploys)
    deployment = _rest({each: values[each] for each in deploys if values[each] is not None})
    parts = {**_parts(Host, values), "deployment": deployment, "extra": _rest(rest)}
    return Host(id=name, **parts, configuration=configuration, unread=unread)


REACHED_BY = ("public_key", "addresses", "port", "jump")


def with_machines(hosts: Mapping[str, Host]) -> Mapping[str, Host]:
    """Say of homes of the flake how they are reached as of their machines, where those are hosts too."""
    found = {}
    for host in hosts.values():
        machine = hosts.get(host.hostname) if host.configuration and not host.is_nixos else None
        is_machine = machine is not None and machine.is_nixos
        parts = {name: getattr(host, name) or getattr(machine, name) for name in REACHED_BY} if is_machine else {}
        found[host.id] = replace(host, **parts)
    return MappingProxyType(found)


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
    parts = {**_parts(Vm, values), "named": tuple(named), "extra": _rest(rest)}
    return Vm(name=name, origin=models.Origin.IMPORTED, host_id=host_id, **parts)


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
