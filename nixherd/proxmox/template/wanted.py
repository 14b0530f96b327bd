"""What is to be made, as values: the template of the definitions, and what the operator says of its making."""

import re
from dataclasses import dataclass
from pathlib import Path

from nixherd.errors import Usage
from nixherd.fleet.models import DEFINITIONS, Fleet
from nixherd.proxmox.guest.plan import template_node
from nixherd.proxmox.vmids import range_of

FIRMWARES = ("ovmf", "seabios")
MADE_OF = "made of "  # with which the second line of its notes begins
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*")
_SHA256 = re.compile(r"(?:sha256:)?(?P<digest>[0-9a-fA-F]{64})")


@dataclass(frozen=True, slots=True)
class Source:
    """Where the image comes from: a volume that a storage has, what the node fetches, or a file here; one of them."""

    volume: str | None = None
    url: str | None = None
    sha256: str | None = None
    file: Path | None = None

    @classmethod
    def of(cls, volume: str | None, url: str | None, checksum: str | None, file: Path | None) -> "Source":
        """Usage unless exactly one was named, and a URL with the SHA-256 of what it gives."""
        if sum(each is not None for each in (volume, url, file)) != 1:
            raise Usage("name one image: --image STORAGE:import/FILE, --url URL with --checksum, or --from FILE")
        found = _SHA256.fullmatch(checksum or "")
        if url is not None and found is None:
            raise Usage(f"--url {url} needs --checksum SHA256, 64 hex digits, as whoever publishes the image tells it")
        if url is None and checksum is not None:
            raise Usage("--checksum belongs to --url: what the storage has is there, and a file's is computed here")
        return cls(volume, url, found["digest"].lower() if found else None, file)


@dataclass(frozen=True, slots=True)
class Wanted:
    """The template; memory is in MiB. `trials` names the range of VMIDs in which one clone tries it."""

    node: str
    vmid: int
    name: str
    storage: str
    bios: str
    pool: str | None
    bridge: str
    cores: int
    memory: int
    trials: str
    source: Source
    images: str | None
    fleet_id: str

    @property
    def mark(self) -> str:
        """The line in its notes by which an unfinished one is known to be ours."""
        return f"nixherd fleet={self.fleet_id} template={self.vmid}"

    def notes(self, volume: str) -> str:
        """What the VM says of itself: whose it is, and what it was made of."""
        return f"{self.mark}\n{MADE_OF}{volume}, {self.bios}, on {self.storage}"

    @property
    def trial_name(self) -> str:
        return f"nixherd-trial-{self.vmid}"

    def trial_mark(self, vmid: int) -> str:
        """The line in the notes of a clone that tries it; it names the clone's VMID, so that no copy of it is one."""
        return f"nixherd fleet={self.fleet_id} trial={self.vmid} vmid={vmid}"


def wanted(
    fleet: Fleet,
    source: Source,
    *,
    storage: str | None,
    images: str | None,
    bios: str | None,
    pool: str | None,
    bridge: str,
    cores: int,
    memory: int,
    trials: str,
) -> Wanted:
    """What is to be made; options come before the definitions. Usage where neither says enough."""
    declared, endpoint = fleet.template, fleet.endpoint
    if declared is None or endpoint is None:
        what = "`template`" if endpoint else "`proxmox`"
        raise Usage(f"{DEFINITIONS}: no {what} is declared; declare it first: the guard lets no other VMID be made")
    if any(vm.vmid == declared.vmid for vm in fleet.vms.values()):
        raise Usage(f"{DEFINITIONS}: {declared.vmid} is the template and a guest; give one of them another VMID")
    place = storage or declared.storage or endpoint.default_storage
    if place is None:
        raise Usage(f"{DEFINITIONS}: template.storage: no storage is declared; name one, or say --storage")
    name = declared.name or f"template-{declared.vmid}"
    if not _NAME.fullmatch(name):
        raise Usage(f"{DEFINITIONS}: template.name: {name} is no DNS name, which a VM's name must be; rename it")
    span = range_of(fleet, trials)
    if not any(span.start in each and span.end in each for each in fleet.ranges):
        raise Usage(f"{trials} is in none of vmidRanges in {DEFINITIONS}; the guard lets a trial have no other VMID")
    return Wanted(
        template_node(fleet),
        declared.vmid,
        name,
        place,
        bios or declared.bios or FIRMWARES[0],
        pool or declared.pool,
        bridge,
        cores,
        memory,
        trials,
        source,
        images,
        fleet.id,
    )
