"""The sizes that a new guest can be made in: a start, which goes into the definitions, to be changed there."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from nixherd.fleet.models import GuestType


@dataclass(frozen=True, slots=True)
class Size:
    """Memory is in MiB, `disk` as the definitions write it. `settings` are further attributes of the definition.

    `needs` are attributes that nobody can know beforehand: they are asked for.
    """

    name: str
    kind: GuestType
    cores: int
    memory: int
    disk: str
    suits: str
    settings: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}), hash=False)
    needs: tuple[str, ...] = ()


SIZES: Mapping[str, Size] = {
    size.name: size
    for size in (
        Size("small", GuestType.QEMU, 2, 2048, "16G", "one small service"),
        Size("docker", GuestType.QEMU, 4, 8192, "64G", "stacks of containers, with Docker"),
        Size(
            "gpu",
            GuestType.QEMU,
            6,
            16384,
            "100G",
            "a GPU that is passed through, by a PCI mapping of the cluster",
            MappingProxyType({"cpu": "host", "machine": "q35"}),
            ("pci",),
        ),
        Size(
            "lxc",
            GuestType.LXC,
            2,
            1024,
            "16G",
            "a container of the hypervisor, out of an archive with NixOS in it",
            MappingProxyType({"unprivileged": True, "features": {"nesting": True}}),
            ("archive",),
        ),
    )
}
