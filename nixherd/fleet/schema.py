"""The one table of what hosts.nix and vms/definitions.nix may say that we obey.

Findings, the parsed fleet and the reference page (docs/fields.md) are made from it. What is not in it is obeyed by
nobody: people's own, as long as its name is not near one that is (`nixherd.fleet.near_names`).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import Any

from nixherd.base import names
from nixherd.base.ssh_keys import HOST_KEY_FILE
from nixherd.fleet.field_types import (
    ADDRESSES,
    BECOME,
    FINGERPRINT,
    FREE,
    HOPS,
    KIND,
    LARGEST_SEARCHED,
    WAY,
    AbsolutePath,
    Address,
    ExistingPath,
    Flag,
    HealthChecks,
    HostKey,
    Integer,
    Keys,
    Network,
    OneOf,
    OneOrMore,
    Share,
    Text,
    Type,
    Words,
)
from nixherd.fleet.guest_types import STORAGE_REMEDY, CloudInit, Devices, Disks, Features, Pci, Size, Startup
from nixherd.fleet.models import DEFINITIONS, NIXHERD, Access, CloudInitSettings, GuestType

DEFAULT_FLEET_ID = "fleet"
DEFAULT_PORT = 8006

# Proxmox VE's own limits: VMIDs (pve-common, pve-vmid), a guest's least memory in MiB (qemu-server).
VMIDS = range(100, 1_000_000_000)
_LEAST_MEMORY = 16
_LONGEST = 24 * 3600  # seconds

_ID = names.pattern(names.HOST_ID)
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_+.-]*")
_LINE = re.compile(r"[^\s\x00-\x1f\x7f-][^\x00-\x1f\x7f]*")
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:+-]*")
_CPU = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:+;=,-]*")
_ARCHIVE = re.compile(rf"{names.STORAGE}:vztmpl/[A-Za-z0-9_.+~-]+\.tar(?:\.gz|\.xz|\.zst)?")


class Place(StrEnum):
    """Where an attribute stands, as the reference calls it."""

    HOST = "A host in hosts.nix"
    BESIDE = NIXHERD
    TOP = DEFINITIONS
    PROXMOX = "proxmox"
    MANAGED = "managed.NAME"
    IMPORTED = "imported.NAME"
    TEMPLATE = "template"
    RANGE = "vmidRanges.NAME"


@dataclass(frozen=True)
class Field:
    """One attribute. `remedy` mends a wrong value, `missing` one that has to be there and is not.

    `default` is what it means to leave it out, `unsaid` the reference's words for that. `protects`: whoever misspells
    it believes something safe that is not. `lenient`: a value that is not understood is left out, and no reason to
    refuse the fleet. `only` is for one kind of guest, `deploys` says how the host is deployed to.
    """

    name: str
    type: Type
    purpose: str
    remedy: str = ""
    missing: str = ""
    unit: str = ""
    default: Any = None
    unsaid: str = ""
    protects: bool = False
    lenient: bool = False
    nullable: bool = True
    only: GuestType | None = None
    deploys: bool = False


_FLAG = Flag()
_NAME_REMEDY = "write the node's own short name"
_POOL = Text("text", re.compile(r"[A-Za-z0-9_.-]+(?:/[A-Za-z0-9_.-]+){0,2}"), "pool's name")
_STORAGE_TYPE = Text("storage's id", names.pattern(names.STORAGE), "storage name")
_NODE_TYPE = Text("node's name", names.pattern(names.NODE), "node name")
_SECONDS_REMEDY = f"write seconds, up to {_LONGEST}"
_TAGS_REMEDY = "write a list of words of letters, digits, '-', '_', '+' and '.'"
_FLAG_REMEDY = "write true or false; without the flag an imported guest is readonly"
_VMID = Integer("VMID", VMIDS[0], VMIDS[-1])
_VMID_REMEDY = f"write its VMID, an integer from {VMIDS.start}"
_RANGE_REMEDY = "write start and end as two VMIDs, the smaller one first"
_VM, _CONTAINER = GuestType.QEMU, GuestType.LXC


def _seconds(name: str, default: int, purpose: str) -> Field:
    seconds = Integer("integer", 0, _LONGEST)
    return Field(name, seconds, purpose, _SECONDS_REMEDY, unit="seconds", unsaid=str(default), deploys=True)


def _flag(name: str, purpose: str, **more: Any) -> Field:
    return Field(name, _FLAG, purpose, "write true or false", **more)


def _vmid(purpose: str) -> Field:
    return Field("vmid", _VMID, purpose, _VMID_REMEDY, _VMID_REMEDY, protects=True)


def _node(purpose: str, unsaid: str = "proxmox.node", *, lenient: bool = False) -> Field:
    return Field("node", _NODE_TYPE, purpose, _NAME_REMEDY, unsaid=unsaid, protects=True, lenient=lenient)


def _where(neighbours: str, discover: str, *, default: Any = None, lenient: bool = False) -> tuple[Field, ...]:
    """What says where a guest is whose agent does not: found, it is known by its pinned key alone."""
    return (
        Field("neighbours", OneOrMore("host's id, or list of them", Text("", _ID, "host's id")),
              "hosts on the guests' network, which are asked at which address a network card was seen: their neighbour "
              "table and DHCP leases", "write the id of a host in hosts.nix, or a list of them",
              unsaid=neighbours, default=default, lenient=lenient),
        Field("discover", OneOrMore("network, or list of them", Network()),
              f"networks whose addresses are tried, at port 22, when nothing else says where a machine is; at most "
              f"/{LARGEST_SEARCHED}", 'write networks such as "10.0.0.0/24"', unsaid=discover, default=default,
              lenient=lenient),
    )  # fmt: skip


_HOST = (
    Field("hostname", Text("host name", names.pattern(names.HOSTNAME), "hostname"), "the machine's real hostname",
          "write letters, digits and '-', at most 63 between dots", unsaid="its id"),
    Field("sshAlias", Text("word", _ID, "alias"), "its short name", "write one word"),
    Field("user", Text("login name", names.pattern(names.USER), "user name"), "the admin user, who logs in there",
          "write a login name", "add the name of the admin user"),
    Field("homeDirectory", AbsolutePath(), "the admin user's home", "write it like /home/USER"),
    Field("publicKey", HostKey(), "the machine's SSH host key, the only one that is accepted; a placeholder until the "
          "machine is installed",
          f'copy the line from the machine\'s {HOST_KEY_FILE}, or write "placeholder"', protects=True),
    Field("authorizedKeys", Keys(), "who may log in", "write the line of a .pub file, or remove it", default=()),
    Field("configurationFile", ExistingPath(), "its NixOS configuration; one with a homeFile alone is Home Manager "
          "only", "write a path without quotes, such as ./hosts/NAME/home.nix",
          unsaid="by the flake's outputs, where homeFile is not said either"),
    Field("homeFile", ExistingPath(), "its Home Manager configuration",
          "write a path without quotes, such as ./hosts/NAME/home.nix"),
    Field("sshKeyName", Text("text"), "the secret file of its user's SSH key", "write a string"),
    Field("initialHashedPassword", Text("text"), "its user's password at first", "write a string"),
    _flag("sudoPasswordless", "whether sudo asks for no password there", unsaid="false"),
    Field("become", BECOME, "how its user is root", "say sudo or doas", default=BECOME.parse("sudo"), unsaid='"sudo"'),
    Field("addresses", ADDRESSES, "where it is tried, in this order, before a hypervisor is asked where it is",
          'write a list of names or addresses without ports, such as [ "10.0.0.5" ]',
          unsaid="hostname, then sshAlias"),
    Field("port", Integer("integer", 1, 65535, "port"), "where its sshd listens", "write a port, usually 22",
          unsaid="as ssh_config says, else 22"),
    Field("jump", HOPS, "through which hosts it is reached, in their order: ids of hosts, or [USER@]NAME[:PORT]",
          "write the id of a host, or [USER@]NAME[:PORT], or a list of them", unsaid="as ssh_config says"),
    Field("tags", Words("list of words", _LINE, "tags"), "groups that select it (`--limit`)", "write a list of words",
          default=()),
    Field("access", WAY, "how far it lets us in: where it is not shell, no command of ours is ever sent there",
          f"write {', '.join(Access)}, or leave it out", default=Access.SHELL, unsaid='"shell"', protects=True),
    Field("healthChecks", HealthChecks(), "checks that it has to pass before a new system is kept", default=(),
          protects=True),
    _flag("canary", "it is deployed to before all others", unsaid="false", deploys=True),
    Field("wave", Integer("integer", 1), "waves are deployed to in their order, each when those before it are proven",
          "write a whole number from 1; canary = true goes first", unsaid="1", protects=True, deploys=True),
    Field("role", Text("text", _LINE, "name"), "hosts of one role are not activated at the same time",
          "write one name", deploys=True),
    Field("max_fail", Share(), "so many hosts may fail before the rest is held", 'write 2 or "10%"', deploys=True,
          unsaid="a wave in which one fails is the last"),
    Field("goal", OneOf("word", ("switch", "boot", "test", "dry-activate"), "goal"), "what a deployment comes to",
          "write switch, boot, test or dry-activate", unsaid='"switch"', deploys=True),
    Field("specialisation", Text("text", _LINE, "name"), "the specialisation to switch to", "write one name",
          deploys=True),
    Field("backup_extension", Text("word", re.compile(names.EXTENSION), "extension"),
          "a home's files that are in the way are moved to FILE.EXTENSION", 'write a word like "backup"', deploys=True),
    _seconds("activation_deadline", 600, "for an activation"),
    _seconds("confirm_deadline", 120, "for the proof after it"),
    _seconds("soak", 0, "how long the new system is watched before it is kept"),
    Field("build_on", Text("word", _LINE, "name"), "who builds its system: local, target, or a host of the fleet",
          "write local, target or the id of a host", unsaid='"local"', deploys=True),
    _flag("substitute_on_destination", "whether it fetches what it can from its own caches", unsaid="true",
          deploys=True),
    _flag("reboot", "whether it is booted into a new system that needs it", unsaid="false", deploys=True),
    _flag("require_signed", "whether every commit has to be signed", unsaid="false", protects=True, deploys=True),
    Field("engine", OneOf("word", ("guarded", "nixos-rebuild"), "engine"), "who activates",
          "write guarded or nixos-rebuild", unsaid='"guarded"', deploys=True),
)  # fmt: skip

_BESIDE = (
    Field("hosts", Type("set of hosts"), "what is said of hosts, by their ids; with hosts.nix what that does not say"),
    Field(
        "fields",
        Type("set of names"),
        'what the entries of hosts.nix call an attribute: { addresses = "ip"; }; null leaves it out',
    ),
    Field("defaults", Type("set"), "attributes of every host that does not say them"),
    _flag("useHostsFile", "whether hosts.nix is the fleet's; where not, it is a file of your own", unsaid="true"),
)

_TOP = (
    Field("fleet", Text("word", _ID, "name for a fleet"), "marks the guests that are this fleet's",
          "write one word, such as homelab", default=DEFAULT_FLEET_ID, unsaid=f'"{DEFAULT_FLEET_ID}"'),
    Field("proxmox", Type("set"), "the hypervisor"),
    Field("imported", Type("set of guests"), "guests that are documented here and never changed"),
    Field("managed", Type("set of guests"), "guests that are made and kept by nixherd"),
    Field("template", Type("set"), "what new VMs are cloned from"),
    Field("vmidRanges", Type("set of ranges"), "which VMIDs guests may have; production is for VMs alone, containers "
          "for containers, templates for templates"),
)  # fmt: skip

_PROXMOX = (
    Field("host", Address(), "where the API answers", "write it without https:// and port",
          "add the name or address of the hypervisor's API"),
    Field("node", _NODE_TYPE, "the node that guests live on", _NAME_REMEDY,
          "add the name of the node that guests live on", protects=True),
    Field("port", Integer("integer", 1, 65535, "port"), "where the API answers", "write a port, usually 8006",
          default=DEFAULT_PORT, unsaid=str(DEFAULT_PORT)),
    Field("user", FREE, "for people: nixherd uses API tokens alone"),
    Field("defaultStorage", _STORAGE_TYPE, "where guests' disks are made", STORAGE_REMEDY),
    Field("backupStorage", _STORAGE_TYPE, "where backups go", STORAGE_REMEDY,
          unsaid="the node's only storage for backups"),
    Field("fingerprint", FINGERPRINT, "of the certificate that the API has to show",
          "copy the certificate's SHA-256 fingerprint: 64 hex digits, with or without colons", protects=True),
    Field("caFile", ExistingPath(), "who signs the API's certificate", "write a path without quotes, such as ./ca.pem",
          protects=True),
    *_where("none but the machine that this runs on", "none is searched", default=()),
)  # fmt: skip

_PLAIN = (
    Field("sockets", Integer("integer", 1), "its CPU sockets, each with so many cores",
          "write how many sockets it has", only=_VM),
    Field("balloon", Integer("integer"), "its least memory; 0 switches ballooning off",
          "write the least memory in MiB, or 0 for no ballooning", unit="MiB", only=_VM),
    Field("cpu", Text("text", _CPU, "CPU type"), "its CPU's type", 'write one such as "host" or "x86-64-v2-AES"',
          only=_VM),
    Field("machine", Text("text", _WORD, "machine type"), "its machine's type", 'write one such as "q35"', only=_VM),
    Field("bios", OneOf('"seabios" or "ovmf"', ("seabios", "ovmf"), "firmware"), "its firmware, when it is made",
          'write "seabios" or "ovmf"', only=_VM),
    _flag("agent", "whether it has a guest agent", only=_VM),
    _flag("onboot", "whether it is started with its node"),
    _flag("protection", "Proxmox's own flag: it and its disks cannot be removed", protects=True),
    Field("description", Text("text"), "its notes, below the line that marks it as ours", "write a string"),
    Field("pool", _POOL, "the pool that it is made in", "write the id that `pvesh get /pools` shows"),
    Field("boot", Words("list of devices", _WORD, "devices", 1), "what it boots from",
          'write the devices in their order, such as [ "scsi0" "net0" ]', only=_VM),
    Field("startup", Startup(), "when it is started with its node",
          "write { order = 1; up = 30; down = 60; }, or some of these"),
    Field("archive", Text("volume", _ARCHIVE, "archive"), "what a container is unpacked from",
          'write a volume such as "local:vztmpl/debian-12-standard.tar.zst"', only=_CONTAINER),
    Field("swap", Integer("integer"), "its swap", "write its swap in MiB", unit="MiB", only=_CONTAINER),
    _flag("unprivileged", "whether its root is nobody on the node", only=_CONTAINER, protects=True),
    Field("features", Features("set of flags", ("fuse", "keyctl", "mknod", "mount", "nesting")),
          "what a container may do", "write { nesting = true; }", only=_CONTAINER),
)  # fmt: skip

# Devices: how each is called, and which properties it may have.
_DISK_NAMES = re.compile(r"(?:scsi(?:[0-9]|[12][0-9]|30)|virtio(?:[0-9]|1[0-5])|sata[0-5]|ide[0-3])")
_MOUNT_NAMES = re.compile(r"mp(?:[0-9]|[1-9][0-9]|1[0-9]{2}|2[0-4][0-9]|25[0-5])")
_NET_NAMES = re.compile(r"net(?:[0-9]|[12][0-9]|3[01])")
_PCI_NAMES = re.compile(r"hostpci(?:[0-9]|1[0-5])")
_DISK = ("size", "storage", "aio", "backup", "cache", "discard", "iothread", "replicate", "ro", "serial", "ssd")
_MOUNT = ("size", "storage", "mp", "acl", "backup", "mountoptions", "quota", "replicate", "ro", "shared")
_NET = ("bridge", "firewall", "link_down", "mac", "macaddr", "model", "mtu", "queues", "rate", "tag", "trunks")
_CONTAINER_NET = (
    *("bridge", "firewall", "gw", "gw6", "hwaddr", "ip", "ip6", "link_down"),
    *("mac", "mtu", "name", "rate", "tag", "trunks", "type"),
)
_PCI = ("mapping", "legacy-igd", "mdev", "pcie", "rombar", "x-vga", "xVga")

_DEVICES = (
    Field("disks", Disks("set of disks", "disks", _DISK_NAMES, "scsi1", _DISK), "further disks; they only grow",
          default=(), only=_VM),
    Field("disks", Disks("set of mount points", "disks", _MOUNT_NAMES, "mp0", _MOUNT), "further disks; they only grow",
          default=(), only=_CONTAINER),
    Field("networks", Devices("set of cards", "networks", _NET_NAMES, "net0", _NET), "network cards", default=(),
          only=_VM),
    Field("networks", Devices("set of cards", "networks", _NET_NAMES, "net0", _CONTAINER_NET), "network cards",
          default=(), only=_CONTAINER),
    Field("pci", Pci("list of mappings, or set of devices", "pci", _PCI_NAMES, "hostpci0", _PCI),
          "devices that are passed through", 'write [ "igpu" ] or { hostpci0 = { mapping = "igpu"; pcie = true; }; }',
          default=(), only=_VM),
    Field("cloudInit", CloudInit("set"), "what its first boot is told", "it must be an attribute set",
          default=CloudInitSettings(), only=_VM),
)  # fmt: skip

_MANAGED = (
    _vmid("its number on the hypervisor"),
    Field("readonly", _FLAG, "protects it: nothing of it is ever changed, and its host is neither wiped nor rebooted",
          _FLAG_REMEDY, default=False, unsaid="false", protects=True, nullable=False),
    Field("type", KIND, "what kind of guest it is", "correct it, or leave it out for a VM", default=_VM,
          unsaid='"qemu"'),
    Field("nixosConfig", Text("host's id"), "the host that it is", "write the id of a host in hosts.nix",
          "add the id of the guest's host in hosts.nix"),
    Field("cores", Integer("integer", 1), "how many it has", "write how many cores it has",
          "add how many cores it has"),
    Field("memory", Integer("integer", _LEAST_MEMORY), "how much it has",
          "write its memory in MiB, such as 8192", "add its memory in MiB", unit="MiB"),
    Field("disk", Size(), "the disk that it boots from", "write a number and its unit, such as 64G",
          "add the size of its disk, such as 64G"),
    Field("storage", _STORAGE_TYPE, "where its disk is made", STORAGE_REMEDY, unsaid="proxmox.defaultStorage"),
    _node("where it is made"),
    Field("tags", Words("list of words", _TAG, "tags"), "its tags, which are groups of its host too", _TAGS_REMEDY,
          default=()),
    *_where("proxmox.neighbours", "proxmox.discover"),
    *_PLAIN,
    *_DEVICES,
)  # fmt: skip

_IMPORTED = (
    _vmid("its number on the hypervisor"),
    Field("readonly", _FLAG, "protects it; an imported guest is never changed in any case", _FLAG_REMEDY,
          default=True, unsaid="true", protects=True, nullable=False),
    Field("hostname", Text("host name"), "the host that it is; else the one of its sshAlias or name", lenient=True,
          remedy="write the hostname of a host in hosts.nix"),
    Field("sshAlias", Text("word"), "the host that it is, where its hostname names none", lenient=True,
          remedy="write the alias of a host in hosts.nix"),
    Field("type", KIND, "what kind of guest it is", 'write "lxc" for a container, or leave it out for a VM',
          default=_VM, unsaid='"qemu"', lenient=True),
    _node("where it is looked for first", lenient=True),
    Field("storage", _STORAGE_TYPE, "where its disk is", STORAGE_REMEDY, lenient=True),
    Field("tags", Words("list of words", _LINE, "tags"), "groups of its host", "write a list of words", default=(),
          lenient=True),
    *_where("proxmox.neighbours", "proxmox.discover", lenient=True),
    Field("specs", FREE, "for people; cores, memory (MiB), disk and storage are compared with what is there"),
    Field("status", FREE, 'for people; "running" and "stopped" are compared with what is there'),
)  # fmt: skip

_TEMPLATE = (
    _vmid("its number on the hypervisor"),
    Field("name", FREE, "for people"),
    _node("where it is"),
    Field("storage", _STORAGE_TYPE, "where `nixherd template create` puts its disks", STORAGE_REMEDY,
          unsaid="proxmox.defaultStorage", lenient=True),
    Field("bios", OneOf('"seabios" or "ovmf"', ("seabios", "ovmf"), "firmware"), "its firmware, when it is made",
          'write "seabios" or "ovmf"', unsaid="ovmf", lenient=True),
    Field("pool", Text("text"), "the pool that it is made in, and tried in", "write a string", lenient=True),
)  # fmt: skip

_RANGE = (
    Field("start", Integer("VMID", 1), "its first VMID", _RANGE_REMEDY, _RANGE_REMEDY),
    Field("end", Integer("VMID", 1), "its last VMID", _RANGE_REMEDY, _RANGE_REMEDY),
)

FIELDS: Mapping[Place, tuple[Field, ...]] = {
    Place.HOST: _HOST,
    Place.BESIDE: _BESIDE,
    Place.TOP: _TOP,
    Place.PROXMOX: _PROXMOX,
    Place.MANAGED: _MANAGED,
    Place.IMPORTED: _IMPORTED,
    Place.TEMPLATE: _TEMPLATE,
    Place.RANGE: _RANGE,
}

# Whoever deploys says these, with --data or in group data: who can push to the tree could say them there.
OPERATORS = ("allow_dirty", "allowed_signers", "no_check", "sign_with", "signed_from")

# Names that people use for what nobody obeys, some of them near one that is obeyed.
COMMON = (
    *("accel", "accent", "accents", "accept", "arch", "boot", "code", "comment", "comments", "contact", "cost"),
    *("description", "docs", "domain", "env", "gpu", "gpus", "group", "groups", "hardware", "hosts", "ip"),
    *("kernel", "label", "labels", "links", "location", "machineId", "machines", "memo", "mode", "modes"),
    *("monitoring", "nodes", "note", "notes", "os", "owner", "ports", "process", "purpose", "rack", "ram"),
    *("roles", "root", "save", "secrets", "service", "services", "site", "spec", "specs", "stage", "stages"),
    *("state", "status", "success", "system", "url", "urls", "users", "uuid", "vlan", "wake"),
)


@cache
def fields_of(place: Place, kind: GuestType | None = None) -> Mapping[str, Field]:
    """The fields of a place by name; for a `kind` of guest only those that it has."""
    return {field.name: field for field in FIELDS[place] if kind is None or field.only in (None, kind)}


def read(
    place: Place, entry: Mapping[str, Any], kind: GuestType | None = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a checked entry says, a value for each field; and what else stands there, which is people's own."""
    fields = fields_of(place, kind)
    values = {name: _value(field, entry.get(name)) for name, field in fields.items()}
    known = fields_of(place)
    return values, {name: value for name, value in entry.items() if name not in known}


def _value(field: Field, value: Any) -> Any:
    if value is None or (field.lenient and any(field.type.problems(value))):
        return field.default
    return field.type.parse(value)
