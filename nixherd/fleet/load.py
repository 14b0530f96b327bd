"""load_fleet(): hosts.nix and vms/definitions.nix, evaluated once and parsed into frozen values."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from nixherd.errors import Finding, FleetInvalid
from nixherd.files import expanded
from nixherd.fleet.evaluate import evaluate
from nixherd.fleet.models import (
    HOSTS,
    NOTHING,
    CloudInitSettings,
    ContainerSettings,
    Endpoint,
    Fleet,
    Host,
    Origin,
    Settings,
    Template,
    Vm,
    VmidRange,
)
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


def _fleet(
    directory: Path, hosts: Mapping[str, Any], definitions: Mapping[str, Any], warnings: Iterable[Finding] = ()
) -> Fleet:
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
    return Host(
        id=name,
        hostname=values["hostname"],
        ssh_alias=values["sshAlias"],
        user=values["user"],
        home_directory=values["homeDirectory"],
        public_key=values["publicKey"],
        authorized_keys=values["authorizedKeys"],
        configuration_file=values["configurationFile"],
        home_file=values["homeFile"],
        ssh_key_name=values["sshKeyName"],
        initial_hashed_password=values["initialHashedPassword"],
        sudo_passwordless=values["sudoPasswordless"],
        addresses=values["addresses"],
        tags=values["tags"],
        access=values["access"],
        health_checks=values["healthChecks"],
        deployment=_rest({each: values[each] for each in deploys if values[each] is not None}),
        extra=_rest(rest),
    )


def _managed(name: str, entry: Mapping[str, Any]) -> Vm:
    values, rest = read(Place.MANAGED, entry, kind_of(entry))
    return Vm(
        name=name,
        vmid=values["vmid"],
        origin=Origin.MANAGED,
        readonly=values["readonly"],
        type=values["type"],
        host_id=values["nixosConfig"],
        cores=values["cores"],
        memory=values["memory"],
        disk=values["disk"],
        storage=values["storage"],
        node=values["node"],
        tags=values["tags"],
        settings=settings_of(values),
        neighbours=values["neighbours"],
        discover=values["discover"],
        extra=_rest(rest),
    )


def settings_of(values: Mapping[str, Any]) -> Settings:
    """A managed guest's settings, of the fields that its kind has."""
    get = values.get
    return Settings(
        sockets=get("sockets"),
        balloon=get("balloon"),
        cpu=get("cpu"),
        machine=get("machine"),
        bios=get("bios"),
        boot=get("boot"),
        agent=get("agent"),
        description=get("description"),
        onboot=get("onboot"),
        protection=get("protection"),
        startup=get("startup"),
        pool=get("pool"),
        disks=get("disks", ()),
        networks=get("networks", ()),
        pci=get("pci", ()),
        cloud_init=get("cloudInit") or CloudInitSettings(),
        container=ContainerSettings(
            archive=get("archive"), swap=get("swap"), unprivileged=get("unprivileged"), features=get("features")
        ),
    )


def _imported(name: str, entry: Mapping[str, Any], by_name: Mapping[str, str]) -> Vm:
    """An imported guest is somebody's documentation: beside VMID and flag, only what can be understood is taken.

    It belongs to the host whose hostname it names; where it names none, to the one that its alias or name is of: a
    host without its guest would be a machine without its guard.
    """
    values, rest = read(Place.IMPORTED, entry)
    named = [each.lower() for each in (values["hostname"], values["sshAlias"], name) if each is not None]
    return Vm(
        name=name,
        vmid=values["vmid"],
        origin=Origin.IMPORTED,
        readonly=values["readonly"],
        type=values["type"],
        host_id=next((by_name[each] for each in named if each in by_name), None),
        storage=values["storage"],
        node=values["node"],
        tags=values["tags"],
        neighbours=values["neighbours"],
        discover=values["discover"],
        specs=values["specs"],
        status=values["status"],
        extra=_rest(rest),
    )


def _endpoint(entry: Mapping[str, Any]) -> Endpoint | None:
    values, _ = read(Place.PROXMOX, entry)
    if not values["host"] or not values["node"]:
        return None
    return Endpoint(
        host=values["host"],
        node=values["node"],
        default_storage=values["defaultStorage"],
        backup_storage=values["backupStorage"],
        port=values["port"],
        fingerprint=values["fingerprint"],
        ca_file=values["caFile"],
        neighbours=values["neighbours"] or (),
        discover=values["discover"] or (),
    )


def _template(entry: Mapping[str, Any]) -> Template:
    values, rest = read(Place.TEMPLATE, entry)
    name = values["name"] if isinstance(values["name"], str) else None
    making = {key: values[key] for key in ("storage", "bios", "pool")}
    return Template(values["vmid"], name, values["node"], **making, extra=_rest(rest))


def _range(name: str, entry: Mapping[str, Any]) -> VmidRange:
    values, _ = read(Place.RANGE, entry)
    return VmidRange(name, values["start"], values["end"])
