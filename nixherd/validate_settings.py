"""What a managed guest's settings may not say; the settings themselves are in `settings.py`."""

import difflib
import re
from collections.abc import Collection, Mapping

from nixherd.models import GuestType
from nixherd.nix_values import NixSet, nix_type, shown
from nixherd.sizes import parse_size
from nixherd.ssh_keys import parse_authorized_key

_STORAGE = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*[A-Za-z0-9]")
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:+-]*")
_CPU = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:+;=,-]*")
_USER = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_VALUE = re.compile(r"[^,\s]+")
_ADDRESSING = re.compile(r"(?:ip|ip6|gw|gw6)=[^,\s]+(?:,(?:ip|ip6|gw|gw6)=[^,\s]+)*")
_ARCHIVE = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*:vztmpl/[A-Za-z0-9_.+~-]+\.tar(?:\.gz|\.xz|\.zst)?")
_MAC = re.compile(r"[0-9A-Fa-f][02468ACEace](?::[0-9A-Fa-f]{2}){5}")

# Devices by the name of the attribute that declares them: how each is called, and which properties it may have.
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
_FEATURES = ("fuse", "keyctl", "mknod", "mount", "nesting")
_CLOUD_INIT = ("user", "keys", "nameserver", "searchDomain", "upgrade")

_ONLY_VM = ("sockets", "balloon", "cpu", "machine", "bios", "boot", "agent", "pci", "cloudInit")
_ONLY_CONTAINER = ("archive", "swap", "unprivileged", "features")


def check_settings(guest: NixSet) -> None:
    """Report what is wrong with a managed guest's declared settings."""
    is_container = guest.get("type") == GuestType.LXC
    for name in _ONLY_VM if is_container else _ONLY_CONTAINER:
        if guest.get(name) is not None:
            kind = "a VM" if is_container else "a container"
            guest.report(name, f"is for {kind}", "remove it, or correct `type`")
    _check_plain(guest)
    if is_container:
        _check_container(guest)
        _check_devices(guest, "disks", _MOUNT_NAMES, "mp0", _MOUNT)
        _check_devices(guest, "networks", _NET_NAMES, "net0", _CONTAINER_NET)
    else:
        _check_devices(guest, "disks", _DISK_NAMES, "scsi1", _DISK)
        _check_devices(guest, "networks", _NET_NAMES, "net0", _NET)
        _check_pci(guest)
        _check_cloud_init(guest)


def _check_plain(guest: NixSet) -> None:
    guest.is_integer("sockets", 1, "write how many sockets it has")
    if guest.is_integer("balloon", 0, "write the least memory in MiB, or 0 for no ballooning"):
        memory = guest.get("memory")
        if isinstance(memory, int) and guest.get("balloon") > memory:
            guest.report("balloon", f"{guest.get('balloon')} is more than memory", "write at most its memory, in MiB")
    guest.is_text("cpu", _CPU, "CPU type", 'write one such as "host" or "x86-64-v2-AES"')
    guest.is_text("machine", _WORD, "machine type", 'write one such as "q35"')
    if guest.get("bios") not in (None, "seabios", "ovmf"):
        guest.report("bios", f"{_shown(guest.get('bios'))} is no firmware", 'write "seabios" or "ovmf"')
    for name in ("agent", "onboot", "protection"):
        if guest.get(name) is not None:
            guest.is_boolean(name, "write true or false")
    for name in ("description", "pool"):
        if guest.get(name) is not None and not isinstance(guest.get(name), str):
            guest.report(name, f"is {nix_type(guest.get(name))}, not a string", "write a string")
    boot = guest.get("boot")
    if boot is not None and not (isinstance(boot, list) and boot and all(_is_word(each) for each in boot)):
        guest.report("boot", "is no list of devices", 'write the devices in their order, such as [ "scsi0" "net0" ]')
    startup = guest.get("startup")
    if startup is not None and not (
        isinstance(startup, dict)
        and startup
        and set(startup) <= {"order", "up", "down"}
        and all(map(_natural, startup.values()))
    ):
        guest.report("startup", "is no startup order", "write { order = 1; up = 30; down = 60; }, or some of these")


def _is_word(value: object) -> bool:
    return isinstance(value, str) and bool(_WORD.fullmatch(value))


def _natural(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _shown(value: object) -> str:
    return shown(value) if isinstance(value, str) else nix_type(value)


def _check_container(guest: NixSet) -> None:
    guest.is_text("archive", _ARCHIVE, "archive", 'write a volume such as "local:vztmpl/debian-12-standard.tar.zst"')
    guest.is_integer("swap", 0, "write its swap in MiB")
    if guest.get("unprivileged") is not None:
        guest.is_boolean("unprivileged", "write true or false")
    features = guest.child("features")
    if features.values is not None:
        if isinstance(features.values, dict):
            _check_names(features, features.values, _FEATURES)
        else:
            features.report("", f"is {nix_type(features.values)}", "write { nesting = true; }")


def _check_names(of: NixSet, values: Mapping[str, object], known: Collection[str]) -> None:
    for name in values:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"it may be {', '.join(known)}"
            of.report(name, "is nothing that it has", hint)


def _check_devices(guest: NixSet, section: str, names: re.Pattern[str], example: str, known: Collection[str]) -> None:
    for name, device in guest.section(section).items():
        if not names.fullmatch(name):
            device.report("", f"{name} is no name for one of its {section}", f"use one such as {example}")
        _check_names(device, device.values, known)
        for key, value in device.values.items():
            if key in known and key not in ("size", "storage") and not _is_value(value):
                device.report(
                    key, f"{_shown(value)} is no value for it", "write text without commas, a number or a boolean"
                )
        for key in ("mac", "macaddr", "hwaddr"):
            device.is_text(key, _MAC, "MAC address", 'write one such as "BC:24:11:00:00:01"')
        if section == "disks":
            _check_disk(device)


def _is_value(value: object) -> bool:
    return isinstance(value, (bool, int)) or (type(value) is str and bool(_VALUE.fullmatch(value)))


def _check_disk(device: NixSet) -> None:
    remedy = "write whole GiB, such as 100G"
    device.is_text("storage", _STORAGE, "storage name", "write the id that `pvesm status` shows")
    if not device.require("size", remedy):
        return
    size = device.get("size")
    try:
        good = isinstance(size, str) and not size.isdecimal() and parse_size(size) % (1 << 30) == 0
    except ValueError:
        good = False
    if not good:
        device.report("size", f"{_shown(size)} is no size for a new disk", remedy)


def _check_pci(guest: NixSet) -> None:
    pci = guest.get("pci")
    if pci is None:
        return
    if isinstance(pci, list):
        if not all(_is_word(name) for name in pci):
            guest.report("pci", "is no list of names", 'write the names of PCI mappings, such as [ "igpu" ]')
        return
    if not isinstance(pci, dict):
        guest.report(
            "pci", f"is {nix_type(pci)}", 'write [ "igpu" ] or { hostpci0 = { mapping = "igpu"; pcie = true; }; }'
        )
        return
    _check_devices(guest, "pci", _PCI_NAMES, "hostpci0", _PCI)
    for device in guest.section("pci").values():
        device.require("mapping", "name a PCI mapping of the cluster: a token cannot pass raw devices through")


def _check_cloud_init(guest: NixSet) -> None:
    entry = guest.child("cloudInit")
    if entry.values is None:
        return
    if not isinstance(entry.values, dict):
        entry.report("", f"is {nix_type(entry.values)}", "it must be an attribute set")
        return
    addresses = [name for name in entry.values if re.fullmatch(r"ipconfig(?:[0-9]|[12][0-9]|3[01])", name)]
    _check_names(entry, {name: None for name in entry.values if name not in addresses}, _CLOUD_INIT)
    entry.is_text("user", _USER, "user name", "write a login name")
    for name in addresses:
        entry.is_text(name, _ADDRESSING, "address", 'write "ip=dhcp" or "ip=10.0.0.5/24,gw=10.0.0.1"')
    for name in ("nameserver", "searchDomain"):
        entry.is_text(name, re.compile(r"[^\n]+"), "line of text", "write a string")
    if entry.get("upgrade") is not None:
        entry.is_boolean("upgrade", "write true or false")
    keys = entry.get("keys")
    if keys is not None and not isinstance(keys, list):
        entry.report("keys", f"is {nix_type(keys)}, not a list", "write a list of SSH public keys")
    for number, key in enumerate(keys if isinstance(keys, list) else ()):
        try:
            parse_authorized_key(key if isinstance(key, str) else "")
        except ValueError as error:
            entry.report(f"keys[{number}]", f"no SSH public key: {error}", "write the line of a .pub file")
