"""Which hosts a fleet has, and the names and groups they can be selected by. Pure."""

import difflib
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from fnmatch import fnmatchcase

from nixherd.base.errors import Usage
from nixherd.fleet.models import Fleet, GuestType, Host, Vm
from nixherd.fleet.validate import GROUPS

# Words that pyinfra cannot take as a group's name: parameters of its Inventory.
_TAKEN = ("self", "names_data", "override_data")


def groups_of(fleet: Fleet) -> dict[str, list[str]]:
    """Every group with the ids of its hosts: the kinds, one per alias and hostname, and the tags of definitions.

    A name means one thing: a hostname or tag that is also a kind of host makes no group, nor does a tag that is
    also a name of a host.
    """
    groups: dict[str, list[str]] = defaultdict(list)
    groups["all"] = list(fleet.hosts)
    names: dict[str, str] = {}
    for host in fleet.hosts.values():
        for kind in _kinds(host, _guests(fleet, host)):
            groups[kind].append(host.id)
        names |= {name: host.id for name in (host.hostname, host.ssh_alias) if name and _is_free(name)}
    for host in fleet.hosts.values():
        tags = (*host.tags, *(tag for vm in _guests(fleet, host) for tag in vm.tags))
        for tag in dict.fromkeys(tags):
            if _is_free(tag) and tag not in names and tag not in fleet.hosts:
                groups[tag].append(host.id)
    return {**groups, **{name: [host_id] for name, host_id in names.items()}}


def separate(patterns: Iterable[str], names: Collection[str]) -> list[str]:
    """Each pattern by itself: `a,b` is two, unless a group is called so (tags may have a comma)."""
    separated: list[str] = []
    for pattern in patterns:
        parts = [] if pattern in names else [part for part in pattern.split(",") if part]
        separated += parts or [pattern]  # never none at all, which would be every host
    return separated


def check_selection(patterns: Iterable[str], groups: Mapping[str, Collection[str]], option: str) -> set[str]:
    """The ids of the hosts that these `--limit` or `--exclude` patterns select: a group, or a glob over ids.

    Usage, with the nearest names, when one of them selects nothing.
    """
    hosts = groups["all"]
    selected: set[str] = set()
    for pattern in patterns:
        matched = groups.get(pattern) or [host for host in hosts if fnmatchcase(host, pattern)]
        if not matched:
            raise Usage(f"{option} {pattern}: {_why_none(pattern, groups, option)}")
        selected.update(matched)
    return selected


def _why_none(pattern: str, groups: Mapping[str, Collection[str]], option: str) -> str:
    if pattern in groups or pattern in GROUPS:
        return "no host of the fleet is in this group; nothing was done"
    if "," in pattern:
        return f"no host or group has this name; repeat {option} for each of several"
    names = sorted({*groups, *groups["all"]})
    near = difflib.get_close_matches(pattern, names, n=3)
    if near:
        return f"no host or group has this name; the nearest are {', '.join(near)}"
    return f"no host or group has this name; there are {', '.join(names)}"


def _guests(fleet: Fleet, host: Host) -> list[Vm]:
    return [vm for vm in fleet.vms.values() if vm.host_id == host.id]


def _kinds(host: Host, guests: list[Vm]) -> Iterator[str]:
    yield "nixos" if host.is_nixos else "home_manager"
    yield from sorted({vm.origin.value for vm in guests})
    if any(vm.readonly for vm in guests):
        yield "readonly"
    if any(vm.type is GuestType.LXC for vm in guests):
        yield "lxc"


def _is_free(name: str) -> bool:
    return name not in GROUPS and name not in _TAKEN and not name.startswith("_")
