"""Why a new host cannot be called so, or have this VMID: what is there already, and what means something else. Pure."""

import re
from collections.abc import Iterator

from nixherd.fleet.groups import groups_of
from nixherd.fleet.models import Fleet
from nixherd.fleet.near_names import distance, normal
from nixherd.fleet.schema import DNS_LABEL, NAME
from nixherd.fleet.validate import DEFINITIONS, GROUPS, HOSTS

# Words that have a meaning where hosts are named: who builds (build_on), this machine, parameters of the inventory.
_RESERVED = ("local", "target", "localhost", "self", "names_data", "override_data")
_LONG = 5  # letters of a group's name from which on a slip of one letter is near it


def problem(name: str) -> str | None:
    """Why this is no name for a host, None where it is one."""
    if not DNS_LABEL.fullmatch(name):
        return f"{name}: is no DNS name; use letters, digits and '-', at most 63, a letter or digit at both ends"
    if name != name.lower():
        return f"{name}: DNS does not tell capitals apart; write {name.lower()}"
    if name.isdigit():
        return f"{name}: would be taken for a VMID; use a letter in it"
    if name in _RESERVED:
        return f"{name}: has a meaning of its own where hosts are named; choose another name"
    if group := _group_near(name):
        is_it = "is" if name == group else "is close to"
        return f"{name}: {is_it} the name of the group {group} of the inventory; choose another name"
    return None


def _group_near(name: str) -> str | None:
    for group in GROUPS:
        if normal(name) == normal(group):
            return group
        numbered = re.fullmatch(rf"{re.escape(normal(group))}\d+", normal(name))
        if len(group) >= _LONG and not numbered and distance(normal(name), normal(group), 1) <= 1:
            return group
    return None


def taken(fleet: Fleet, name: str, alias: str, vmid: int | None) -> Iterator[str]:
    """What of the fleet has one of these already, a line each."""
    yield from _taken_name(fleet, name, "")
    if alias != name:
        if not NAME.fullmatch(alias):
            yield f"--ssh-alias {alias}: is no alias; write one word of letters, digits, '-', '_' and '.'"
        elif alias in GROUPS:
            yield f"--ssh-alias {alias}: is the name of a group of the inventory; choose another"
        else:
            yield from _taken_name(fleet, alias, "--ssh-alias ")
    if vmid is not None:
        for vm in fleet.vms.values():
            if vm.vmid == vmid:
                yield f"--vmid {vmid}: is {vm.attribute}.vmid in {DEFINITIONS}; take another one"
        if fleet.template and fleet.template.vmid == vmid:
            yield f"--vmid {vmid}: is template.vmid in {DEFINITIONS}; take another one"


def _taken_name(fleet: Fleet, name: str, option: str) -> Iterator[str]:
    wanted, given = name.lower(), f"{option}{name}"
    for host in fleet.hosts.values():
        owned = {"the id": host.id, "the hostname": host.hostname, "the sshAlias": host.ssh_alias}
        if what := next((what for what, each in owned.items() if each and each.lower() == wanted), None):
            yield f"{given}: is {what} of {host.id} in {HOSTS} already; choose another name"
            return
    for vm in fleet.vms.values():
        if vm.name.lower() == wanted:
            yield f"{given}: is {vm.attribute} in {DEFINITIONS} already; choose another name"
            return
    for group, members in groups_of(fleet).items():
        if group.lower() == wanted:
            yield f"{given}: is a tag of {', '.join(members)}, which it would take the place of; choose another name"
            return
