"""What a hypervisor has for a fleet that begins, as its token sees it. Only GETs are sent."""

from dataclasses import dataclass

from nixherd.fleet.models import GuestType
from nixherd.proxmox.answers import Resource, Storage
from nixherd.proxmox.client import Client

_POOL = "/pool/"


@dataclass(frozen=True, slots=True)
class Offers:
    """What the whole cluster has. `guests` are all that are seen, by VMID; in `pools` the token may make some."""

    guests: tuple[Resource, ...]
    nodes: tuple[str, ...]
    pools: tuple[str, ...]

    @property
    def templates(self) -> tuple[Resource, ...]:
        """The VMs to clone from."""
        return tuple(each for each in self.guests if each.template and each.type is GuestType.QEMU)


def offers(client: Client) -> Offers:
    """Ask for it. Raise ApiError where an answer does not come."""
    paths = client.permissions().paths
    pools = {path.removeprefix(_POOL) for path, granted in paths.items() if "VM.Allocate" in granted and _POOL in path}
    return Offers(client.resources(), client.nodes(), tuple(sorted(pools)))


def disk_storages(client: Client, node: str) -> tuple[Storage, ...]:
    """Return the storages of a node that take disks now, by name. Raise ApiError where it does not say."""
    return tuple(each for each in client.storages(node) if "images" in each.content and each.away is None)


def storage_of(client: Client, template: Resource) -> str | None:
    """Return the storage of a template's boot disk. Raise ApiError or NotVisible where it cannot be looked at."""
    config = client.config(template.node, template.vmid)
    drive = config.boot_disk if config else None
    return drive.storage if drive else None
