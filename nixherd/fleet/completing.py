"""What configurations say of the hosts that are worked on: read once while the flake stays as it is, and judged.

It has no part in which hosts there are, in groups, or in what the guard goes by: those are in `load_fleet` alone.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from nixherd.base.errors import FAILURES, FleetError, Refused
from nixherd.base.terminal import say, worded
from nixherd.fleet.models import DEFINITIONS, FLAKE, NOTHING, Fleet, Host, Origin, Unkept
from nixherd.fleet.nix_values import NixSet
from nixherd.fleet.parse import host_of, with_machines
from nixherd.fleet.remembered import DETAILS, Memory
from nixherd.fleet.revisions import Tree
from nixherd.fleet.schema import Place
from nixherd.fleet.shapes import Told, told
from nixherd.fleet.validate import check_fields, check_together
from nixherd.nix.evaluator import Evaluator

# What the options of our module are called, where the table of fields has another name.
_OPTIONS = {"address": "addresses", "buildOn": "build_on"}


def completed(fleet: Fleet, host_ids: Iterable[str], evaluator: Evaluator, *, whole: bool) -> Fleet:
    """The fleet, with all that is known of these hosts; one that cannot be read says why, and stops nobody else.

    `whole`: this run evaluates them anyway, so that all of it is asked for at once.
    """
    host_ids = tuple(sorted(host_ids))
    if not any(fleet.hosts[host_id].unread for host_id in host_ids):
        return fleet
    is_tree = isinstance(evaluator.source, Tree)
    memory = Memory.of(fleet.path) if is_tree else Memory(fleet.path, None)
    known = memory.recall(DETAILS) or {}
    found = _read(evaluator, known, _unread(fleet, host_ids), host_ids if whole else ())
    fleet = _with(fleet, found)
    # a home is reached as its machine is, which need not have been asked for
    found |= (machines := _read(evaluator, known, _unread(fleet, _machines(fleet, host_ids))))
    fleet = _with(fleet, machines)
    # nor need those that others are reached through
    while hops := _unread(fleet, {hop for host_id in found for hop in fleet.hops_of(host_id)} - found.keys()):
        found |= (passed := _read(evaluator, known, hops))
        fleet = _with(fleet, passed)
    good = {host_id: details for host_id, details in found.items() if not isinstance(details, FleetError)}
    news = tuple(_unkept(fleet, good))
    if not good.keys() <= known.keys():
        memory.keep(DETAILS, {**known, **good})
        for each in news:
            if not known.keys() >= {*each.hosts}:
                say(f"not kept: {each}", err=True)
    return replace(fleet, hosts=with_machines(fleet.hosts), unkept=(*fleet.unkept, *news))


def _unkept(fleet: Fleet, details: Mapping[str, Any]) -> Iterable[Unkept]:
    """What other tools are told of these hosts in vain."""
    for host_id, each in details.items():
        host = fleet.hosts[host_id]
        if host.unread is None and isinstance(each, dict):
            unkept = told(each.get("shape"), host.attribute.name).unkept
            yield from (replace(one, hosts=(host_id,)) for one in unkept)


def _unread(fleet: Fleet, host_ids: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(host_id for host_id in host_ids if fleet.hosts[host_id].unread))


def _read(
    evaluator: Evaluator, known: Mapping[str, Any], host_ids: Sequence[str], whole: tuple[str, ...] = ()
) -> dict[str, Any]:
    """What configurations say, unjudged, or why that is not known; what is not known is asked for all at once.

    As part of an evaluation of all of `whole`, where there are some: those who plan wait for that one.
    """
    unknown = tuple(host_id for host_id in host_ids if host_id not in known)
    if unknown and whole:
        evaluator.together = whole
    found = {host_id: _details(evaluator, unknown, host_id, whole=bool(whole)) for host_id in unknown}
    return {**{host_id: known[host_id] for host_id in host_ids if host_id in known}, **found}


def _details(evaluator: Evaluator, host_ids: tuple[str, ...], host_id: str, *, whole: bool) -> Any:
    """What a configuration says, unjudged; or why that is not known."""
    try:
        if whole:
            return evaluator.evaluate(host_ids, host_id).details
        return evaluator.details(host_ids, host_id)
    except FleetError as error:
        return error


def _machines(fleet: Fleet, host_ids: Iterable[str]) -> Collection[str]:
    homes = [host for host in map(fleet.hosts.__getitem__, host_ids) if not host.is_nixos and host.public_key is None]
    return {host.hostname for host in homes if host.hostname in fleet.hosts and fleet.hosts[host.hostname].is_nixos}


def _with(fleet: Fleet, details: Mapping[str, Any]) -> Fleet:
    hosts = {id: _host(fleet, id, details[id]) if id in details else host for id, host in fleet.hosts.items()}
    return replace(fleet, hosts=MappingProxyType(hosts))


def _host(fleet: Fleet, host_id: str, details: Any) -> Host:
    host = fleet.hosts[host_id]
    try:
        if isinstance(details, FleetError):
            raise details
        other = told(details.get("shape"), host.attribute.name) if isinstance(details, dict) else Told()
        values = {**fleet.defaults, **entry_of(details, other.entry), **fleet.entries.get(host_id, {})}
        if other.nowhere and not values.get("addresses"):
            raise FleetError(f"{other.nowhere} in {fleet.file}")
        _require_sound(fleet, host, values)
        complete = host_of(host_id, values, host.configuration)
        _require_its_guest(fleet, complete)
        if not complete.user:
            what = f"who logs in there is not known: its {host.attribute} lets root or one admin with a key in, or"
            raise FleetError(f"{host_id}: {what} say user in {fleet.file}")
    except FAILURES as error:
        failure = worded(error, f"{host_id}: reading what its configuration says")
        return replace(host, unread=str(failure).splitlines()[0])
    return complete


def entry_of(details: Any, other: Mapping[str, Any] = NOTHING) -> dict[str, Any]:
    """What details.nix comes to, in the words of the table of fields; FleetError on anything else.

    What `other` tools are told goes before what a configuration says of itself, not before the options for nixherd.
    """
    try:
        options, ports, logins = details["options"], details["ports"], details["logins"]
        entry = {_OPTIONS.get(name, name): value for name, value in options.items() if value not in (None, [])}
        if isinstance(entry.get("addresses"), str):
            entry["addresses"] = [entry["addresses"]]
        entry = {**other, **entry}
        if details["hostname"]:
            entry["hostname"] = details["hostname"]
        if ports and 22 not in ports:
            entry.setdefault("port", ports[0])
        may_be_root = "root" in logins or "access" in entry  # forced commands are root's
        user = details["user"] or ("root" if may_be_root else logins[0] if len(logins) == 1 else None)
        if user:
            entry.setdefault("user", user)
        if details["homeDirectory"]:
            entry["homeDirectory"] = details["homeDirectory"]
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise FleetError(f"what a configuration says came out as something unexpected ({error!r})") from error
    return entry


def _require_sound(fleet: Fleet, host: Host, values: dict[str, Any]) -> None:
    """FleetError unless what is written of a host may stand in hosts.nix."""
    entry = NixSet(FLAKE, host.id, f"{host.attribute}.config.nixherd", values, [])
    check_fields(entry, Place.HOST, needed=False)
    check_together(entry, {id: NixSet(FLAKE, id, "", fleet.entries.get(id, {}), []) for id in fleet.hosts})
    if errors := [finding for finding in entry.findings if not finding.is_warning]:
        raise FleetError(str(errors[0]))


def _require_its_guest(fleet: Fleet, host: Host) -> None:
    """Refused where a guest is documented by the name that a host gives itself alone: it would not be protected."""
    for vm in fleet.vms.values():
        if vm.origin is Origin.IMPORTED and vm.host_id is None and host.hostname.lower() in vm.named:
            what = f"{vm.attribute} is called as {host.id} calls itself, {host.hostname}"
            raise Refused(f'{DEFINITIONS}: {what}; write hostname = "{host.id}" there, or rename one of them')
