"""What a fleet's files may not say: pure checks over evaluated Nix values, every finding at once.

A finding is one line, `FILE: ATTRIBUTE: what is wrong; what to do`. Checked is what nixherd acts on.
`specs`, `hardware`, `notes`, `services` and whatever else people write down for each other is never looked at,
and an imported guest is documented reality: only its VMID and its readonly flag have to hold.
"""

import difflib
import re
from collections import defaultdict
from collections.abc import Callable, Container, Mapping
from typing import Any

from nixherd.models import GuestType
from nixherd.nix_values import NixSet, nix_type, shown
from nixherd.sizes import parse_size
from nixherd.ssh_keys import parse_authorized_key, parse_public_key
from nixherd.validate_settings import check_settings

HOSTS = "hosts.nix"
DEFINITIONS = "vms/definitions.nix"
DEFAULT_FLEET_ID = "fleet"
DEFAULT_PORT = 8006

# The names that inventory.py gives to groups of its own: a host of that name could not be selected.
GROUPS = ("all", "nixos", "home_manager", "managed", "imported", "readonly", "lxc", "inventory")

# Proxmox VE's own limits: VMIDs (pve-common, pve-vmid), a guest's least memory in MiB (qemu-server).
_VMIDS = range(100, 1_000_000_000)
_LEAST_MEMORY = 16

# What the usual ranges are for; a range of any other name takes any guest, but no template.
_TEMPLATES = "templates"
_ONLY_FOR: Mapping[str, GuestType | None] = {
    "production": GuestType.QEMU,
    "containers": GuestType.LXC,
    _TEMPLATES: None,
}

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9])?"
_HOSTNAME = re.compile(rf"(?=.{{1,253}}$){_LABEL}(?:\.{_LABEL})*")
_DNS_LABEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
_ADDRESS = re.compile(rf"{_HOSTNAME.pattern}|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]+")
_USER = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_STORAGE = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*[A-Za-z0-9]")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_+.-]*")
_FINGERPRINT = re.compile(r"[0-9A-Fa-f]{64}|[0-9A-Fa-f]{2}(?::[0-9A-Fa-f]{2}){31}")


def is_placeholder(key: object) -> bool:
    """True for a `publicKey` that is yet to be filled in."""
    return key is None or (type(key) is str and (not key.strip() or "placeholder" in key.lower()))


def parse_fingerprint(text: str) -> str:
    """A SHA-256 fingerprint, with or without colons, as 64 lower-case hex digits; ValueError if it is none."""
    if not _FINGERPRINT.fullmatch(text.strip()):
        raise ValueError("it is no SHA-256 fingerprint")
    return text.strip().replace(":", "").lower()


def find_errors(hosts: Any, definitions: Any) -> list[str]:
    """Every reason why these two evaluated files describe no fleet; `definitions` is None where there is none."""
    findings: list[str] = []
    top = NixSet(HOSTS, "", "", hosts, findings)
    host_entries = top.entries()
    _check_hosts(top, host_entries)
    if definitions is not None:
        _check_definitions(NixSet(DEFINITIONS, "", "", definitions, findings), host_entries)
    return findings


# hosts.nix


def _check_hosts(top: NixSet, hosts: Mapping[str, NixSet]) -> None:
    for name, host in hosts.items():
        if not _NAME.fullmatch(name):
            host.report("", "is no name for a host", "use letters, digits, '-', '_' and '.'")
        elif name in GROUPS:
            host.report("", f"'{name}' is the name of a group of the inventory", "give the host another id")
        _check_host(host)
    _check_names(hosts)
    _check_authorized_keys(hosts)


def _check_host(host: NixSet) -> None:
    if host.require("hostname", "add the machine's real hostname"):
        host.is_text("hostname", _HOSTNAME, "hostname", "write letters, digits and '-', at most 63 between dots")
    if host.is_text("sshAlias", _NAME, "alias", "write one word") and host.get("sshAlias") in GROUPS:
        host.report("sshAlias", f"'{host.get('sshAlias')}' is the name of a group of the inventory", "choose another")
    if host.require("user", "add the name of the admin user"):
        host.is_text("user", _USER, "user name", "write a login name")
    home = host.get("homeDirectory")
    if home is not None and not (isinstance(home, str) and home.startswith("/")):
        host.report("homeDirectory", "is no absolute path", "write it like /home/USER")
    _check_public_key(host)
    host.is_existing_path("configurationFile")
    host.is_existing_path("homeFile")
    if host.get("configurationFile") is None and host.get("homeFile") is None:
        host.report("homeFile", "missing, and so is configurationFile", "add one, or both for a NixOS host")
    for name in ("sshKeyName", "initialHashedPassword"):
        if host.get(name) is not None and not isinstance(host.get(name), str):
            host.report(name, f"is {nix_type(host.get(name))}, not a string", "write a string")
    if host.get("sudoPasswordless") is not None:
        host.is_boolean("sudoPasswordless", "write true or false")


def _check_public_key(host: NixSet) -> None:
    key = host.get("publicKey")
    remedy = 'copy the line from the machine\'s /etc/ssh/ssh_host_ed25519_key.pub, or write "placeholder"'
    if is_placeholder(key):
        return
    if type(key) is not str:
        host.report("publicKey", f"is {nix_type(key)}, not a string", remedy)
    elif problem := _problem(parse_public_key, key):
        host.report("publicKey", f"no SSH public key: {problem}", remedy)


def _check_names(hosts: Mapping[str, NixSet]) -> None:
    """Whatever a host may be called by (id, hostname, alias) belongs to one host alone; case does not tell apart."""
    owners: dict[str, dict[str, str]] = defaultdict(dict)
    for name in hosts:
        owners[name.lower()].setdefault(name, "")
    for attribute in ("hostname", "sshAlias"):
        for name, host in hosts.items():
            value = host.get(attribute)
            if isinstance(value, str):
                owners[value.lower()].setdefault(name, attribute)
    for owned in owners.values():
        (first, first_attribute), *others = owned.items()
        for name, attribute in others:
            host = hosts[name]
            whose = f"the {first_attribute} of {first}" if first_attribute else f"the id of host {first}"
            host.report(
                attribute, f"'{host.get(attribute) or name}' is also {whose}", "a name belongs to one host alone"
            )


def _check_authorized_keys(hosts: Mapping[str, NixSet]) -> None:
    """Hosts mostly share their keys, so a bad one is reported once, with how many have it."""
    problems: dict[tuple[Any, str], list[tuple[NixSet, int]]] = defaultdict(list)
    for host in hosts.values():
        keys = host.get("authorizedKeys")
        if keys is not None and not isinstance(keys, list):
            host.report("authorizedKeys", f"is {nix_type(keys)}, not a list", "write a list of SSH public keys")
        for number, key in enumerate(keys if isinstance(keys, list) else ()):
            if problem := _problem(parse_authorized_key, key):
                problems[repr(key), problem].append((host, number))
    for (_, problem), ((host, number), *others) in problems.items():
        also = f" (and {len(others)} more)" if others else ""
        what = f"no SSH public key: {problem}"
        host.report(f"authorizedKeys[{number}]{also}", what, "write the line of a .pub file, or remove it")


# vms/definitions.nix


def _check_definitions(top: NixSet, hosts: Mapping[str, NixSet]) -> None:
    if not isinstance(top.values, dict):
        top.report("", f"is {nix_type(top.values)}", "it must be an attribute set")
        return
    top.is_text("fleet", _NAME, "name for a fleet", "write one word, such as homelab")
    imported, managed = top.section("imported"), top.section("managed")
    proxmox, template = top.child("proxmox"), top.child("template")
    _check_endpoint(proxmox, needed=bool(managed))
    for guest in managed.values():
        _check_managed(guest, hosts, proxmox)
    for guest in (*imported.values(), *managed.values()):
        guest.is_boolean("readonly", "write true or false; without the flag an imported guest is readonly")
    for name in sorted(managed.keys() & imported.keys()):
        managed[name].report("", f"is declared as imported.{name} too", "declare it once")
    _check_one_guest_per_host(managed, imported, hosts)
    _check_vmids(managed, imported, template, top.section("vmidRanges"))


def _check_endpoint(proxmox: NixSet, *, needed: bool) -> None:
    if proxmox.values is None:
        if needed:
            proxmox.report("", "missing, and there are managed guests", "add host, node and defaultStorage")
        return
    if not isinstance(proxmox.values, dict):
        proxmox.report("", f"is {nix_type(proxmox.values)}", "it must be an attribute set")
        return
    if needed:
        proxmox.require("host", "add the name or address of the hypervisor's API")
        proxmox.require("node", "add the name of the node that guests live on")
    proxmox.is_text("host", _ADDRESS, "name or address", "write it without https:// and port")
    proxmox.is_text("node", _DNS_LABEL, "node name", "write the node's own short name")
    for name in ("defaultStorage", "backupStorage"):
        proxmox.is_text(name, _STORAGE, "storage name", "write the id that `pvesm status` shows")
    if proxmox.is_integer("port", 1, "write a port, usually 8006") and proxmox.get("port") > 65535:
        proxmox.report("port", f"{proxmox.get('port')} is no port", "write a port, usually 8006")
    remedy = "copy the certificate's SHA-256 fingerprint: 64 hex digits, with or without colons"
    proxmox.is_text("fingerprint", _FINGERPRINT, "fingerprint", remedy)
    proxmox.is_existing_path("caFile")


def _check_managed(guest: NixSet, hosts: Mapping[str, NixSet], proxmox: NixSet) -> None:
    if not _DNS_LABEL.fullmatch(guest.name):
        guest.report("", "is no name for a guest", "use letters, digits and '-'")
    if guest.get("type") not in (None, *GuestType):
        guest.report("type", f"is neither {' nor '.join(GuestType)}", "correct it, or leave it out for a VM")
    if guest.require("nixosConfig", "add the id of the guest's host in hosts.nix"):
        _check_config(guest, hosts)
    if guest.require("cores", "add how many cores it has"):
        guest.is_integer("cores", 1, "write how many cores it has")
    if guest.require("memory", "add its memory in MiB"):
        guest.is_integer("memory", _LEAST_MEMORY, "write its memory in MiB, such as 8192")
    if guest.require("disk", "add the size of its disk, such as 64G"):
        _check_disk(guest)
    guest.is_text("storage", _STORAGE, "storage name", "write the id that `pvesm status` shows")
    if guest.get("storage") is None and proxmox.get("defaultStorage") is None:
        guest.report("storage", "missing, and so is proxmox.defaultStorage", "name the storage for its disk")
    guest.is_text("node", _DNS_LABEL, "node name", "write the node's own short name")
    tags = guest.get("tags")
    if tags is not None and not (isinstance(tags, list) and all(map(_is_tag, tags))):
        guest.report("tags", "is no list of tags", "write a list of words of letters, digits, '-', '_', '+' and '.'")
    check_settings(guest)


def _check_config(guest: NixSet, hosts: Mapping[str, NixSet]) -> None:
    config = guest.get("nixosConfig")
    if not isinstance(config, str):
        guest.report("nixosConfig", f"is {nix_type(config)}, not a string", "write the id of a host in hosts.nix")
    elif config not in hosts:
        near = difflib.get_close_matches(config, hosts, n=1)
        hint = f"did you mean {near[0]}?" if near else "add the host there, or correct the name"
        guest.report("nixosConfig", f"{HOSTS} has no host {shown(config)}", hint)


def _is_tag(value: object) -> bool:
    return isinstance(value, str) and bool(_TAG.fullmatch(value))


def _check_disk(guest: NixSet) -> None:
    disk = guest.get("disk")
    remedy = "write a number and its unit, such as 64G"
    if not isinstance(disk, str):
        guest.report("disk", f"is {nix_type(disk)}, not a string", remedy)
    elif disk.isdecimal() or _problem(parse_size, disk):
        # Without a unit Proxmox takes bytes in one place and GiB in another.
        guest.report("disk", f"{shown(disk)} is no size", remedy)


def _check_one_guest_per_host(
    managed: Mapping[str, NixSet], imported: Mapping[str, NixSet], hosts: Mapping[str, NixSet]
) -> None:
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


def _check_vmids(
    managed: Mapping[str, NixSet], imported: Mapping[str, NixSet], template: NixSet, ranges: Mapping[str, NixSet]
) -> None:
    spans = {name: span for name, entry in ranges.items() if (span := _span(entry))}
    templates = [template] if template.values is not None else []
    numbered = [guest for guest in (*imported.values(), *templates, *managed.values()) if _has_vmid(guest)]
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
            kind = GuestType.LXC if guest.get("type") == GuestType.LXC else GuestType.QEMU
            fitting = {name: span for name, span in spans.items() if _ONLY_FOR.get(name, kind) == kind}
            _check_in_range(guest, "a container" if kind is GuestType.LXC else "a VM", fitting, owners)


def _has_vmid(guest: NixSet) -> bool:
    if not isinstance(guest.values, dict):
        guest.report("", f"is {nix_type(guest.values)}", "it must be an attribute set")
        return False
    remedy = f"write its VMID, an integer from {_VMIDS.start}"
    if not guest.require("vmid", remedy) or not guest.is_integer("vmid", _VMIDS.start, remedy):
        return False
    if guest.get("vmid") not in _VMIDS:
        guest.report("vmid", f"{guest.get('vmid')} is more than {_VMIDS[-1]}", remedy)
    return True


def _span(entry: NixSet) -> range | None:
    """The VMIDs of one range of vmidRanges, None after a finding."""
    remedy = "write start and end as two VMIDs, the smaller one first"
    sound = [entry.require(name, remedy) and entry.is_integer(name, 1, remedy) for name in ("start", "end")]
    if not all(sound):
        return None
    span = range(entry.get("start"), entry.get("end") + 1)
    if not span:
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


def _problem(parse: Callable[[str], object], value: object) -> str | None:
    """Why the parser refuses the value, None if it does not."""
    if type(value) is not str:
        return f"it is {nix_type(value)}, not a string"
    try:
        parse(value)
    except ValueError as error:
        return str(error)
    return None
