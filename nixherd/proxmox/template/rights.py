"""Which rights the token lacks for making a template, found before anything is changed. Pure."""

from collections.abc import Iterator, Sequence

from nixherd.proxmox.answers import Permissions
from nixherd.proxmox.template.image import Image
from nixherd.proxmox.template.wanted import Wanted

_GUESTS = (
    *("VM.Allocate", "VM.Audit", "VM.Clone", "VM.PowerMgmt"),
    *(f"VM.Config.{what}" for what in ("CPU", "Memory", "Options", "Disk", "Network", "HWType", "Cloudinit")),
)


def missing(permissions: Permissions, wanted: Wanted, trial: int, image: Image | None, major: int) -> Iterator[str]:
    """A line for each path, with what is missing there. `image` is what has to be brought or imported; `major` of the
    server's version. With a pool its path is what counts: the two guests' own go with them."""
    agent = "VM.GuestAgent.Unrestricted" if major >= 9 else "VM.Monitor"
    guests = [f"/pool/{wanted.pool}"] if wanted.pool else [f"/vms/{wanted.vmid}", f"/vms/{trial}"]
    needs: list[tuple[str, Sequence[str]]] = [(path, (*_GUESTS, agent)) for path in guests]
    needs.append((f"/storage/{wanted.storage}", ("Datastore.AllocateSpace",)))
    needs.append((f"/sdn/zones/localnetwork/{wanted.bridge}", ("SDN.Use",)))
    if image and image.sha256:
        needs.append((f"/storage/{image.storage}", ("Datastore.AllocateTemplate",)))
        cluster = permissions.allows("/", "Sys.Audit") and permissions.allows("/", "Sys.Modify")
        if wanted.source.url and not cluster:
            needs.append((f"/nodes/{wanted.node}", ("Sys.AccessNetwork",)))
    for path, privileges in needs:
        if lacking := [each for each in privileges if not permissions.allows(path, each)]:
            yield (
                f"the API token lacks {', '.join(lacking)} on {path}; docs/proxmox.md has the recipe for making a "
                "template, or name another token's file with --token-file"
            )
