"""A guest's configuration as a value, parsed once, in the client. Nothing here does I/O.

Formats are those of the API's schema and of `PVE::QemuServer`: property strings (`virtio=MAC,bridge=vmbr0`),
booleans as 1 and 0, sizes with a unit, keys URL-encoded.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from urllib.parse import quote, unquote

from nixherd.base.names import MAC, is_a, parse_size

_DRIVES = r"(?:ide|sata|scsi|virtio)\d+"
VM_DISKS = rf"{_DRIVES}|efidisk0|tpmstate0"  # the options of a VM that name a disk
CT_DISKS = r"rootfs|mp\d+"
_DISK = re.compile(_DRIVES, re.ASCII)
_STARTED_WITH = re.compile(f"{VM_DISKS}|{CT_DISKS}", re.ASCII)
_UNUSED = re.compile(r"unused\d+", re.ASCII)
_NET = re.compile(r"net\d+", re.ASCII)
_HOTPLUG = "network,disk,usb"  # where nothing is said
_TRUE = ("1", "on", "yes", "true")


def properties(text: str, default: str) -> dict[str, str]:
    """Return a property string as a mapping; a first item without a key is the value of `default`."""
    items = [item for item in text.split(",") if item]
    pairs = (item.partition("=") if "=" in item else (default, "=", item) for item in items)
    return {key: value for key, _, value in pairs}


def written(values: Mapping[str, str]) -> str:
    """Write a property string, each item with its key."""
    return ",".join(f"{key}={value}" for key, value in values.items())


def tags_of(text: str) -> tuple[str, ...]:
    """Return the tags in one text as the server keeps them: small letters, each once, sorted."""
    return tuple(sorted({tag.lower() for tag in re.split(r"[,;\s]+", text) if tag}))


def is_true(value: object) -> bool:
    """Tell whether the API means yes: 1, "1", and what people write into a configuration by hand."""
    return str(value).lower() in _TRUE


@dataclass(frozen=True, slots=True)
class Drive:
    """One drive of a VM: `scsi0`, on `volume` (`nvmeprom:vm-110-disk-0`); `size` in bytes, None where not shown."""

    name: str
    volume: str
    size: int | None
    cdrom: bool

    @property
    def is_cloudinit(self) -> bool:
        return self.cdrom and "cloudinit" in self.volume

    @property
    def storage(self) -> str:
        return self.volume.partition(":")[0]


def _drive(name: str, text: str) -> Drive:
    values = properties(text, "file")
    return Drive(name, values.get("file", ""), size_or_none(values.get("size")), values.get("media") == "cdrom")


def size_or_none(text: str | None) -> int | None:
    """Parse a `size=` into bytes; None for what is not a size: then it is unknown."""
    try:
        return parse_size(text) if text else None
    except ValueError:
        return None


def net_values(text: str) -> dict[str, str]:
    """Return a network card's properties, `model` and `macaddr` among them, however the text spells those two."""
    values: dict[str, str] = {}
    for key, value in properties(text, "model").items():
        if is_a(MAC, value.lower()) and key not in ("macaddr", "hwaddr"):
            values |= {"model": key, "macaddr": value}
        else:
            values[key] = value
    return values


@dataclass(frozen=True, slots=True)
class Net:
    """One network card; `mac` in lower case, None where the text shows none."""

    name: str
    mac: str | None
    bridge: str | None


def _net(name: str, text: str) -> Net:
    values = properties(text, "model")
    mac = next((value.lower() for value in values.values() if is_a(MAC, value.lower())), None)
    return Net(name, mac, values.get("bridge"))


def hotplug_features(text: str | None) -> frozenset[str]:
    """Return what is plugged into a VM, and out of it, while it runs, by its option `hotplug`.

    `network`, `disk`, `usb`, …
    """
    named = _HOTPLUG if text in (None, "1") else str(text)
    return frozenset(() if named == "0" else re.split(r"[,;\s]+", named))


def encode_ssh_keys(keys: Iterable[str]) -> str:
    """Return `sshkeys` as the API takes it: one key a line, then URL-encoded whole (a blank is %20, never +)."""
    return quote("".join(f"{key.strip()}\n" for key in keys), safe="")


@dataclass(frozen=True)
class VmConfig:
    """A guest's configuration, pending values included. Values are typed as the API shows them."""

    values: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, data: Any) -> "VmConfig":
        """Raise TypeError when this is not a configuration."""
        if not isinstance(data, Mapping):
            raise TypeError(f"a configuration is a {type(data).__name__}")
        return cls(data)

    def text(self, key: str) -> str | None:
        value = self.values.get(key)
        return None if value is None else str(value)

    def flag(self, key: str) -> bool:
        """Return a boolean option; absent is False, the server's default for those that we ask for."""
        return is_true(self.values.get(key, 0))

    def number(self, key: str) -> int | None:
        """Return an integer option, also where the API shows it as text (`memory`); None where it is something else."""
        text = self.text(key)
        return int(text) if text is not None and text.isascii() and text.isdigit() else None

    @property
    def name(self) -> str | None:
        return self.text("name") or self.text("hostname")

    @property
    def digest(self) -> str | None:
        return self.text("digest")

    @property
    def lock(self) -> str | None:
        return self.text("lock")

    @property
    def description(self) -> str:
        return self.text("description") or ""

    @property
    def is_template(self) -> bool:
        return self.flag("template")

    @property
    def memory(self) -> int | None:
        """MiB. The server's default is 512; `current=N,…` is the newer way to write it."""
        text = properties(self.text("memory") or "512", "current").get("current", "")
        return int(text) if text.isascii() and text.isdigit() else None

    @property
    def cores(self) -> int:
        return self.number("cores") or 1

    @property
    def sockets(self) -> int:
        return self.number("sockets") or 1

    @property
    def bios(self) -> str:
        return self.text("bios") or "seabios"

    @property
    def secure_boot(self) -> bool:
        """Whether its OVMF was given the keys that Secure Boot checks with."""
        disk = properties(self.text("efidisk0") or "", "file")
        return self.bios == "ovmf" and is_true(disk.get("pre-enrolled-keys", 0))

    @property
    def agent_enabled(self) -> bool:
        return is_true(properties(self.text("agent") or "0", "enabled").get("enabled", "0"))

    @property
    def tags(self) -> tuple[str, ...]:
        """Lower case, sorted; 8.4 keeps them as they were typed when the VM was created."""
        return tags_of(self.text("tags") or "")

    @property
    def ssh_keys(self) -> tuple[str, ...]:
        lines = unquote(self.text("sshkeys") or "").splitlines()
        return tuple(line.strip() for line in lines if line.strip())

    @cached_property
    def drives(self) -> Mapping[str, Drive]:
        return {name: _drive(name, str(text)) for name, text in self.values.items() if _DISK.fullmatch(name)}

    @cached_property
    def disks(self) -> Mapping[str, Drive]:
        """All that the guest starts with: drives, EFI variables, TPM, root, mount points; on a storage or not."""
        return {name: _drive(name, str(text)) for name, text in self.values.items() if _STARTED_WITH.fullmatch(name)}

    @property
    def volumes(self) -> Mapping[str, Drive]:
        """Those of `disks` that are volumes of a storage."""
        return {name: drive for name, drive in self.disks.items() if ":" in drive.volume}

    @cached_property
    def unused(self) -> Mapping[str, Drive]:
        """Volumes of its own that it no longer uses: `unused0`, …"""
        return {name: _drive(name, str(text)) for name, text in self.values.items() if _UNUSED.fullmatch(name)}

    @property
    def root(self) -> Drive | None:
        """A container's root file system."""
        text = self.text("rootfs")
        return None if text is None else _drive("rootfs", text)

    @property
    def has_cloudinit_drive(self) -> bool:
        return any(drive.is_cloudinit for drive in self.drives.values())

    @cached_property
    def nets(self) -> Mapping[str, Net]:
        return {name: _net(name, str(text)) for name, text in self.values.items() if _NET.fullmatch(name)}

    @property
    def boot_order(self) -> tuple[str, ...]:
        """The devices that the firmware tries, in order; empty where the server's default decides."""
        return tuple(name for name in properties(self.text("boot") or "", "legacy").get("order", "").split(";") if name)

    @property
    def boot_disk(self) -> Drive | None:
        """The disk that the firmware tries first: `boot: order=…`, the older `bootdisk`, else the only disk."""
        disks = {name: drive for name, drive in self.drives.items() if not drive.cdrom}
        named = [*self.boot_order, self.text("bootdisk") or ""]
        first = next((disks[name] for name in named if name in disks), None)
        return first or (next(iter(disks.values())) if len(disks) == 1 else None)


# What two configurations of the same guest may differ in without anybody having changed it.
_NEVER_THE_SAME = frozenset(
    ("cipassword", "description", "digest", "lock", "meta", "parent", "runningcpu", "runningmachine", "smbios1")
) | frozenset(("running-nets-host-mtu", "snapstate", "snaptime", "vmgenid", "vmstate"))


def same_settings(first: VmConfig, second: VmConfig) -> bool:
    """Tell whether two configurations of a guest agree, apart from volumes' names and what the server makes up."""

    def settings(config: VmConfig) -> dict[str, str]:
        values = {key: str(value) for key, value in config.values.items() if key not in _NEVER_THE_SAME}
        for key in values:
            if _STARTED_WITH.fullmatch(key):
                values[key] = ",".join(sorted(part for part in values[key].split(",")[1:]))
            elif key.startswith("unused"):
                values[key] = ""
        return {key: text for key, text in values.items() if not key.startswith("unused")}

    return settings(first) == settings(second)


def unlike_snapshot(now: VmConfig, then: VmConfig) -> tuple[str, ...]:
    """Return the options in which a guest differs from a snapshot of it; none after a rollback.

    Unused disks, notes and what a server makes up anew stay as they are; volumes keep their names. Of a snapshot with
    memory a server drops a `machine` that the guest did not have before.
    """
    keys = {key for key in now.values.keys() | then.values.keys() if not key.startswith("unused")} - _NEVER_THE_SAME
    if then.text("vmstate") is not None and now.text("machine") is None:
        keys.discard("machine")
    return tuple(sorted(key for key in keys if now.text(key) != then.text(key)))
