"""What a fleet's files may not say: pure checks over evaluated Nix values, every finding at once.

Each attribute is checked as the table of fields (`nixherd.fleet.schema`) says; here is what several of them have to say
together. `specs`, `hardware`, `notes`, `services` and whatever else people write down for each other is never looked
at, and an imported guest is documented reality: only its VMID and its readonly flag have to hold.
"""

import difflib
from collections import defaultdict
from collections.abc import Collection, Container, Mapping
from typing import Any

from nixherd.base import names
from nixherd.base.errors import Finding, Severity
from nixherd.base.ssh_options import HopName
from nixherd.fleet.models import DEFINITIONS, HOSTS, Access, GuestType
from nixherd.fleet.near_names import judge
from nixherd.fleet.nix_values import NixSet, shown
from nixherd.fleet.schema import Field, Place, fields_of

# The names that inventory.py gives to groups of its own: a host of that name could not be selected.
GROUPS = ("all", "nixos", "home_manager", "managed", "imported", "readonly", "lxc", "inventory")

# What the usual ranges are for; a range of any other name takes any guest, but no template.
_TEMPLATES = "templates"
ONLY_FOR = {"production": GuestType.QEMU, "containers": GuestType.LXC, _TEMPLATES: None}
"""None: no guest's, but a template's."""
_BUILDERS = ("local", "target")
_Sets = Mapping[str, NixSet]


def find(
    hosts: _Sets, definitions: Any, findings: list[Finding], homes: Collection[str] = (), *, is_whole: bool = True
) -> list[Finding]:
    """Every finding about these hosts and definitions, the errors first; `definitions` is None where there is none.

    `findings` are those that the entries of the hosts have given rise to already, `homes` the ids of those that are
    homes: whose hostname is that of the machine that they are on. Not `is_whole`: each entry is judged
    by itself already, and what it lacks may be said elsewhere.
    """
    _check_hosts(hosts, homes, is_whole=is_whole)
    if definitions is not None:
        _check_definitions(NixSet(DEFINITIONS, "", "", definitions, findings), hosts)
    return sorted(findings, key=lambda finding: finding.is_warning)


def is_host(name: str) -> bool:
    """Whether an attribute of hosts.nix is a host; one that begins with `_` is its owner's own."""
    return not name.startswith("_")


def hosts_of(top: NixSet) -> dict[str, NixSet]:
    """The hosts of hosts.nix; anything else in it is a finding."""
    if not top.is_set():
        return {}
    entries = (top.child(name) for name in top.values if is_host(name))
    return {entry.name: entry for entry in entries if entry.is_set()}


# One attribute set


def check_fields(
    entry: NixSet, place: Place, kind: GuestType | None = None, *, needed: bool = True, but: Container[str] = ()
) -> None:
    """Report wrong values, what is missing where it is `needed`, and names that are near a field's."""
    for name, field in fields_of(place, kind).items():
        if name not in but:
            _check_value(entry, field, needed=needed)
    for name, value in entry.values.items():
        if name in fields_of(place) and name not in fields_of(place, kind) and value is not None:
            other = "a VM" if kind is GuestType.LXC else "a container"
            entry.report(name, f"is for {other}", "remove it, or correct `type`")
        elif judgement := judge(place, name, value):
            entry.report(name, judgement.what, judgement.remedy, severity=judgement.severity)


def _check_value(entry: NixSet, field: Field, *, needed: bool) -> None:
    value = entry.get(field.name)
    if value is None and (field.nullable or field.name not in entry.values):
        if field.missing and needed:
            entry.report(field.name, "missing", field.missing)
        return
    for problem in field.type.problems(value):
        what, remedy = problem.what, problem.remedy or field.remedy
        if field.lenient:
            entry.report(field.name, f"{what}, and is left out", remedy, at=problem.at, severity=Severity.WARNING)
        else:
            entry.report(field.name, what, remedy, at=problem.at)


def _is_sound(entry: NixSet, place: Place, name: str) -> bool:
    """Whether a value is there, and nothing is wrong with it."""
    value = entry.get(name)
    return value is not None and not any(fields_of(place)[name].type.problems(value))


# hosts.nix


def _check_hosts(hosts: _Sets, homes: Container[str], *, is_whole: bool) -> None:
    for name, host in hosts.items():
        if not names.is_a(names.ANY_HOST_ID, name):
            host.report("", "is not a name for a host", "use letters, digits, '-', '_' and '.'")
        elif name in GROUPS:
            host.report("", f"'{name}' is the name of a group of the inventory", "give the host another id")
        if is_whole:
            check_fields(host, Place.HOST, but=("authorizedKeys",))
        check_together(host, hosts)
    _check_names(hosts, homes)
    if is_whole:
        _check_authorized_keys(hosts)


def check_together(host: NixSet, hosts: _Sets) -> None:
    """What the attributes of a host, each for itself sound, cannot say together, or of the others."""
    if host.get("sshAlias") in GROUPS:
        host.report("sshAlias", f"'{host.get('sshAlias')}' is the name of a group of the inventory", "choose another")
    if _is_sound(host, Place.HOST, "build_on"):
        _check_builder(host, hosts)
    if _is_sound(host, Place.HOST, "jump"):
        _check_jump(host, hosts)
    _check_deployment(host)


def _check_deployment(host: NixSet) -> None:
    """What is said of a deployment and cannot be all at once."""
    if _is_sound(host, Place.HOST, "soak"):
        usual = int(fields_of(Place.HOST)["confirm_deadline"].unsaid)
        confirm = host.get("confirm_deadline") if _is_sound(host, Place.HOST, "confirm_deadline") else usual
        if host.get("soak") >= confirm:
            remedy = f"write fewer seconds than confirm_deadline, which is {confirm}"
            host.report("soak", f"{host.get('soak')} leaves no time to confirm", remedy)
    if host.get("specialisation") is not None and host.get("goal") in ("boot", "dry-activate"):
        host.report("specialisation", f'is not switched to where goal is "{host.get("goal")}"', "remove one of them")


def _check_builder(host: NixSet, hosts: _Sets) -> None:
    builder = host.get("build_on")
    names = [name for each in hosts.values() for name in (each.name, each.get("sshAlias")) if isinstance(name, str)]
    if builder not in (*_BUILDERS, *names):
        near = difflib.get_close_matches(builder, (*_BUILDERS, *names), n=1)
        hint = f"did you mean {near[0]}?" if near else fields_of(Place.HOST)["build_on"].remedy
        host.report("build_on", f"{shown(builder)} is neither local, target nor a host of the fleet", hint)


def _check_jump(host: NixSet, hosts: _Sets) -> None:
    """A way through hosts ends, and each of them lets one pass and is known by its key."""
    known = {name: each for each in hosts.values() for name in (each.get("sshAlias"), each.name) if name}

    def next_hosts(each: NixSet) -> list[NixSet]:
        named = _hops_of(each)
        return [known[hop] for hop in named if hop in known]

    for each in next_hosts(host):
        if each.get("access") in (Access.PUSH_CLOSURE, Access.TRIGGER):
            what = f"{each.name} takes forced commands alone"
            host.report("jump", what, "name a host that lets one pass")
    way, seen = [host], {host.name}
    while way:
        for each in next_hosts(way.pop()):
            if each.name == host.name:
                host.report("jump", f"{host.name} is reached through itself", "take it out of the way there")
                return
            if each.name not in seen:
                seen.add(each.name)
                way.append(each)


def _hops_of(host: NixSet) -> tuple[str, ...]:
    """The names of what a host is reached through, where it says so soundly."""
    if not _is_sound(host, Place.HOST, "jump"):
        return ()
    hops = fields_of(Place.HOST)["jump"].type.parse(host.get("jump"))
    return tuple(HopName.parse(hop).name for hop in hops)


def _check_names(hosts: _Sets, homes: Container[str]) -> None:
    """Whatever a host may be called by (id, hostname, alias) belongs to one host alone; case does not tell apart."""
    owners: dict[str, dict[str, str]] = defaultdict(dict)
    for name in hosts:
        owners[name.lower()].setdefault(name, "")
    for attribute in ("hostname", "sshAlias"):
        for name, host in hosts.items():
            value = host.get(attribute)
            if isinstance(value, str) and not (attribute == "hostname" and name in homes):
                owners[value.lower()].setdefault(name, attribute)
    for owned in owners.values():
        (first, first_attribute), *others = owned.items()
        for name, attribute in others:
            host = hosts[name]
            whose = f"the {first_attribute} of {first}" if first_attribute else f"the id of host {first}"
            what = f"'{host.get(attribute) or name}' is also {whose}"
            host.report(attribute, what, "a name belongs to one host alone")


def _check_authorized_keys(hosts: _Sets) -> None:
    """Hosts mostly share their keys, so a bad one is reported once, with how many have it."""
    field = fields_of(Place.HOST)["authorizedKeys"]
    bad: dict[tuple[str, str], list[tuple[NixSet, str, str]]] = defaultdict(list)
    for host in hosts.values():
        keys = host.get("authorizedKeys")
        for problem in field.type.problems(keys) if keys is not None else ():
            which = repr(keys[int(problem.at.strip("[]"))]) if problem.at else host.name
            bad[which, problem.what].append((host, problem.at, problem.remedy or field.remedy))
    for (_, what), ((host, at, remedy), *others) in bad.items():
        also = f" (and {len(others)} more)" if others else ""
        host.report("authorizedKeys", what, remedy, at=f"{at}{also}")


# vms/definitions.nix


def _check_definitions(top: NixSet, hosts: _Sets) -> None:
    if not top.is_set():
        return
    check_fields(top, Place.TOP)
    imported, managed = top.section("imported"), top.section("managed")
    ranges = top.section("vmidRanges")
    proxmox, template = top.child("proxmox"), top.child("template")
    _check_endpoint(proxmox, needed=bool(managed))
    _check_neighbours(proxmox, Place.PROXMOX, hosts, proxmox)
    _check_no_hypervisor(hosts, proxmox)
    for guest in managed.values():
        _check_managed(guest, hosts, proxmox)
        _check_neighbours(guest, Place.MANAGED, hosts, proxmox)
    for guest in imported.values():
        check_fields(guest, Place.IMPORTED)
        _check_neighbours(guest, Place.IMPORTED, hosts, proxmox)
    if template.values is not None and template.is_set():
        check_fields(template, Place.TEMPLATE)
    for entry in ranges.values():
        check_fields(entry, Place.RANGE)
    for name in sorted(managed.keys() & imported.keys()):
        managed[name].report("", f"is declared as imported.{name} too", "declare it once")
    _check_one_guest_per_host(managed, imported, hosts)
    _check_vmids(managed, imported, template, ranges)


def _check_endpoint(proxmox: NixSet, *, needed: bool) -> None:
    if proxmox.values is None:
        if needed:
            proxmox.report("", "missing, and there are managed guests", "add host, node and defaultStorage")
    elif proxmox.is_set():
        check_fields(proxmox, Place.PROXMOX, needed=needed)


def _check_neighbours(entry: NixSet, place: Place, hosts: _Sets, proxmox: NixSet) -> None:
    """Whoever is asked for its neighbours is a host that may be logged in to, and no hypervisor."""
    if entry.values is None or not _is_sound(entry, place, "neighbours"):
        return
    severity = Severity.WARNING if place is Place.IMPORTED else Severity.ERROR
    names = ((name, host) for host in hosts.values() for name in (host.get("sshAlias"), host.name))
    known = {name: host for name, host in names if isinstance(name, str)}
    hypervisor = {str(each).lower() for each in (proxmox.get("host"), proxmox.get("node"), entry.get("node")) if each}
    for name in fields_of(place)["neighbours"].type.parse(entry.get("neighbours")):
        host = known.get(name)
        if host is None:
            near = difflib.get_close_matches(name, known, n=1)
            what = f"{HOSTS} has no host {shown(name)}"
            hint = f"did you mean {near[0]}?" if near else "name a host of the fleet on the guests' network"
        elif host.get("access") in (Access.PUSH_CLOSURE, Access.TRIGGER):
            what, hint = f"{name} takes forced commands alone", "name a host that can be asked"
        elif not hypervisor.isdisjoint(_names_of(host)):
            what = f"{name} is the hypervisor, which is never logged in to"
            hint = "name another machine on the guests' network"
        else:
            continue
        entry.report("neighbours", what, hint, severity=severity)


def _check_no_hypervisor(hosts: _Sets, proxmox: NixSet) -> None:
    """No way that the fleet names leads through the hypervisor: an ssh_config is its operator's own word."""
    hypervisor = {str(each).lower() for each in (proxmox.get("host"), proxmox.get("node")) if each}
    for host in hosts.values():
        for name in _hops_of(host):
            known = _names_of(hosts[name]) if name in hosts else {name.lower()}
            if not hypervisor.isdisjoint(known):
                what = f"{name} is the hypervisor, which is never logged in to"
                host.report("jump", what, "name another machine, or say it in your ssh_config (ProxyJump)")


def _names_of(host: NixSet) -> set[str]:
    """All that says where a host is, in lower case."""
    addresses = host.get("addresses")
    named = [host.name, host.get("hostname"), host.get("sshAlias"), *(addresses if isinstance(addresses, list) else ())]
    return {str(name).lower() for name in named if name is not None}


def _check_managed(guest: NixSet, hosts: _Sets, proxmox: NixSet) -> None:
    if not names.is_a(names.DNS_NAME, guest.name):
        guest.report("", "is not a name for a guest", "use letters, digits and '-', with dots between")
    kind = kind_of(guest.values)
    check_fields(guest, Place.MANAGED, kind)
    if _is_sound(guest, Place.MANAGED, "nixosConfig") and guest.get("nixosConfig") not in hosts:
        config = guest.get("nixosConfig")
        near = difflib.get_close_matches(config, hosts, n=1)
        hint = f"did you mean {near[0]}?" if near else "add the host there, or correct the name"
        guest.report("nixosConfig", f"{HOSTS} has no host {shown(config)}", hint)
    if guest.get("storage") is None and proxmox.get("defaultStorage") is None:
        guest.report("storage", "missing, and so is proxmox.defaultStorage", "name the storage for its disk")
    memory, balloon = guest.get("memory"), guest.get("balloon")
    sound = all(_is_sound(guest, Place.MANAGED, name) for name in ("memory", "balloon"))
    if sound and kind is GuestType.QEMU and balloon > memory:
        guest.report("balloon", f"{balloon} is more than memory", "write at most its memory, in MiB")


def kind_of(guest: Mapping[str, Any]) -> GuestType:
    """What kind of guest an entry is of, as far as that can be told."""
    return GuestType.LXC if guest.get("type") == GuestType.LXC else GuestType.QEMU


def _check_one_guest_per_host(managed: _Sets, imported: _Sets, hosts: _Sets) -> None:
    claimed: dict[str, str] = {}
    documented = {str(guest.get("hostname")).lower(): guest for guest in imported.values()}
    for guest in managed.values():
        config = guest.get("nixosConfig")
        if not isinstance(config, str) or config not in hosts:
            continue
        other = documented.get(str(hosts[config].get("hostname")).lower())
        owner = claimed.get(config) or (other.attribute if other else None)
        if owner:
            guest.report("nixosConfig", f"host {config} already lives in {owner}", "one guest is one host")
        claimed.setdefault(config, guest.attribute)


def _check_vmids(managed: _Sets, imported: _Sets, template: NixSet, ranges: _Sets) -> None:
    spans = {name: span for name, entry in ranges.items() if (span := _span(entry))}
    guests = (*imported.values(), template, *managed.values())
    numbered = [guest for guest in guests if _is_sound(guest, Place.TEMPLATE, "vmid")]
    owners: dict[int, str] = {}
    for guest in numbered:
        vmid = guest.get("vmid")
        if vmid in owners:
            guest.report("vmid", f"{vmid} is also {owners[vmid]}.vmid", "give each guest a VMID of its own")
        owners.setdefault(vmid, guest.attribute)
    for guest in numbered:
        if guest is template and _TEMPLATES in spans:
            _check_in_range(guest, "a template", {_TEMPLATES: spans[_TEMPLATES]}, owners)
        elif guest in managed.values() and spans:
            kind = kind_of(guest.values)
            fitting = {name: span for name, span in spans.items() if ONLY_FOR.get(name, kind) == kind}
            _check_in_range(guest, "a container" if kind is GuestType.LXC else "a VM", fitting, owners)


def _span(entry: NixSet) -> range | None:
    """The VMIDs of one range of vmidRanges, None where it is none."""
    if not all(_is_sound(entry, Place.RANGE, name) for name in ("start", "end")):
        return None
    span = range(entry.get("start"), entry.get("end") + 1)
    if not span:
        remedy = fields_of(Place.RANGE)["start"].remedy
        entry.report("", f"ends ({span.stop - 1}) before it starts ({span.start})", remedy)
    return span or None


def _check_in_range(guest: NixSet, kind: str, spans: Mapping[str, range], taken: Container[int]) -> None:
    vmid = guest.get("vmid")
    if any(vmid in span for span in spans.values()):
        return
    shown = ", ".join(f"{name} ({span.start} to {span[-1]})" for name, span in spans.items())
    free = next((number for span in spans.values() for number in span if number not in taken), None)
    remedy = f"take one of {shown}" + (f", such as {free}" if free else "") if shown else "add a range to vmidRanges"
    guest.report("vmid", f"{vmid} is in no range for {kind}", remedy)
