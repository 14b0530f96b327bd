"""What a managed guest's definition says of it beyond cores, memory and disk.

Whatever is not declared stays as it is on the hypervisor. Devices carry the API's own property names and texts
(`bridge=vmbr0,tag=20`), so that they can be compared with what the API shows.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

NO_VALUES: Mapping[str, str] = MappingProxyType({})


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
