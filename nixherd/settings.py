"""What a managed guest's definition says of it beyond cores, memory and disk: values, and how they are read.

Whatever is not declared stays as it is on the hypervisor. Devices carry the API's own property names and texts
(`bridge=vmbr0,tag=20`), so that they can be compared with what the API shows.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from nixherd.sizes import parse_size

NO_VALUES: Mapping[str, str] = MappingProxyType({})
# Attributes that Nix code spells otherwise than the API does.
_API_NAMES = {"mac": "macaddr", "xVga": "x-vga"}


@dataclass(frozen=True, slots=True)
class Device:
    """A network card, a passed-through device or a further disk: `name` as the API has it (`net1`, `scsi1`).

    `values` are the declared properties, as texts; booleans are 1 and 0. `size` (bytes) and `storage` are a disk's.
    """

    name: str
    values: Mapping[str, str] = field(default_factory=lambda: NO_VALUES)
    size: int | None = None
    storage: str | None = None


@dataclass(frozen=True, slots=True)
class CloudInitSettings:
    """What the first boot is told; `addresses` by the API's names (`ipconfig0`)."""

    user: str | None = None
    keys: tuple[str, ...] | None = None
    addresses: Mapping[str, str] = field(default_factory=lambda: NO_VALUES)
    nameserver: str | None = None
    search_domain: str | None = None
    upgrade: bool | None = None


@dataclass(frozen=True, slots=True)
class ContainerSettings:
    """What only a container has: the archive that it is unpacked from, swap (MiB), privileges and features."""

    archive: str | None = None
    swap: int | None = None
    unprivileged: bool | None = None
    features: str | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """Declared settings; None and empty mean: as it is. `balloon` is MiB, 0 switches ballooning off."""

    sockets: int | None = None
    balloon: int | None = None
    cpu: str | None = None
    machine: str | None = None
    bios: str | None = None
    boot: tuple[str, ...] | None = None
    agent: bool | None = None
    description: str | None = None
    onboot: bool | None = None
    protection: bool | None = None
    startup: str | None = None
    pool: str | None = None
    disks: tuple[Device, ...] = ()
    networks: tuple[Device, ...] = ()
    pci: tuple[Device, ...] = ()
    cloud_init: CloudInitSettings = field(default_factory=CloudInitSettings)
    container: ContainerSettings = field(default_factory=ContainerSettings)


UNSET = Settings()


def take_settings(entry: dict[str, Any]) -> Settings:
    """Takes the settings out of a validated definition and returns them; what is left is people's documentation."""
    take = entry.pop
    boot, startup = take("boot", None), take("startup", None)
    return Settings(
        **{key: take(key, None) for key in ("sockets", "balloon", "cpu", "machine", "bios", "agent", "description")},
        **{key: take(key, None) for key in ("onboot", "protection", "pool")},
        boot=None if boot is None else tuple(boot),
        startup=None if startup is None else _properties(startup),
        disks=tuple(_disk(name, dict(device)) for name, device in (take("disks", None) or {}).items()),
        networks=_devices(take("networks", None) or {}),
        pci=_devices(_named(take("pci", None) or {})),
        cloud_init=_cloud_init(take("cloudInit", None) or {}),
        container=ContainerSettings(
            archive=take("archive", None),
            swap=take("swap", None),
            unprivileged=take("unprivileged", None),
            features=_properties(features) if (features := take("features", None)) else None,
        ),
    )


def _text(value: object) -> str:
    return str(int(value)) if isinstance(value, bool) else str(value)


def _properties(values: Mapping[str, Any]) -> str:
    return ",".join(f"{key}={_text(values[key])}" for key in sorted(values))


def _devices(entries: Mapping[str, Mapping[str, Any]]) -> tuple[Device, ...]:
    return tuple(
        Device(name, MappingProxyType({_API_NAMES.get(key, key): _text(value) for key, value in values.items()}))
        for name, values in entries.items()
    )


def _named(pci: Any) -> Mapping[str, Mapping[str, Any]]:
    """PCI devices, also when they are given as a list of mappings' names."""
    if isinstance(pci, list):
        return {f"hostpci{number}": {"mapping": name} for number, name in enumerate(pci)}
    return dict(pci)


def _disk(name: str, values: dict[str, Any]) -> Device:
    size, storage = values.pop("size"), values.pop("storage", None)
    [device] = _devices({name: values})
    return Device(name, device.values, parse_size(size), storage)


def _cloud_init(entry: Mapping[str, Any]) -> CloudInitSettings:
    keys = entry.get("keys")
    addresses = {key: value for key, value in entry.items() if key.startswith("ipconfig")}
    return CloudInitSettings(
        user=entry.get("user"),
        keys=None if keys is None else tuple(keys),
        addresses=MappingProxyType(addresses),
        nameserver=entry.get("nameserver"),
        search_domain=entry.get("searchDomain"),
        upgrade=entry.get("upgrade"),
    )
