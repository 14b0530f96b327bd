"""What is to be made: the template of the definitions, and the image that it is made of, brought to a storage."""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from nixherd.errors import FleetError, Usage
from nixherd.fleet.models import DEFINITIONS, Fleet
from nixherd.proxmox.client import Client
from nixherd.proxmox.guest import tasks
from nixherd.proxmox.guest.identity import range_of
from nixherd.proxmox.guest.plan import template_node
from nixherd.proxmox.guest.storages import require_place, storage_seen
from nixherd.proxmox.guest.tasks import Progress

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
        match = _SHA256.fullmatch(checksum or "")
        if url is not None and match is None:
            raise Usage(f"--url {url} needs --checksum SHA256, 64 hex digits, as whoever publishes the image tells it")
        if url is None and checksum is not None:
            raise Usage("--checksum belongs to --url: what the storage has is there, and a file's is computed here")
        return cls(volume, url, match["digest"].lower() if match else None, file)


@dataclass(frozen=True, slots=True)
class TemplateSpec:
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


def template_spec(
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
) -> TemplateSpec:
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
    return TemplateSpec(
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


_FORMATS = {".qcow2": "qcow2", ".img": "qcow2", ".raw": "raw", ".vmdk": "vmdk"}  # cloud images call qcow2 so, too
_QCOW2 = b"QFI\xfb"


@dataclass(frozen=True, slots=True)
class Image:
    """The volume to import from; `sha256` where it has to be brought there, None where it is there already."""

    volume: str
    sha256: str | None = None

    @property
    def storage(self) -> str:
        return self.volume.partition(":")[0]

    @property
    def filename(self) -> str:
        return self.volume.rpartition("/")[2]


def image_of(client: Client, spec: TemplateSpec) -> Image:
    """Which volume it is, and whether it is there. Usage for what no disk can be imported from; only GETs are sent."""
    source = spec.source
    if source.volume is not None:
        return _on_storage(client, spec, source.volume)
    if source.url is not None:
        suffix = Path(urlsplit(source.url).path).suffix.lower()
        if suffix not in _FORMATS:
            known = ", ".join(_FORMATS)
            raise Usage(f"--url {source.url}: ends with {suffix or 'no suffix'}, and not with one of {known}")
        form, sha256 = _FORMATS[suffix], str(source.sha256)
    else:
        assert source.file is not None
        form, sha256 = _format_and_digest(source.file)
    storage = spec.images or _only_storage(client, spec.node)
    require_place(client, spec.node, storage, "import")
    # whose it is and what is in it, so that no file is taken for another one
    volume = f"{storage}:import/nixherd-{spec.vmid}-{sha256[:16]}.{form}"
    present = {row.volid for row in client.volumes(spec.node, storage, content="import")}
    return Image(volume, None if volume in present else sha256)


def bring(client: Client, spec: TemplateSpec, image: Image, timeout: float, progress: Progress) -> None:
    """Have the image on its storage, and see it there. TaskFailed when it cannot be had, or has another SHA-256."""
    assert image.sha256 is not None
    source, place = spec.source, (spec.node, image.storage)
    if source.url is not None:
        upid = client.download(*place, source.url, image.filename, image.sha256)
    else:
        assert source.file is not None
        upid = client.upload(*place, source.file, image.filename, image.sha256)
    tasks.wait(client, upid, timeout, progress)
    if image.volume not in {row.volid for row in client.volumes(*place, content="import")}:
        raise FleetError(f"{image.volume} is not there, whatever its task says; look at `pvesm list {image.storage}`")


def _on_storage(client: Client, spec: TemplateSpec, volume: str) -> Image:
    storage = volume.partition(":")[0]
    if ":" not in volume or storage_seen(client, spec.node, storage) is None:
        raise Usage(
            f"--image {volume}: {spec.node} has no storage {storage} that this token may see; write STORAGE:import/FILE"
        )
    row = next((row for row in client.volumes(spec.node, storage) if row.volid == volume), None)
    if row is None:
        raise Usage(f"--image {volume} is not there; `nixherd vm storage {storage} --content import` lists what is")
    if row.content != "import":
        raise Usage(
            f"--image {volume} is content {row.content}; Proxmox VE imports disks from content `import` alone: "
            "allow that for a storage and put the image there (--url, or --from FILE)"
        )
    return Image(volume)


def _only_storage(client: Client, node: str) -> str:
    fitting = [each.name for each in client.storages(node) if each.active and "import" in each.content]
    if len(fitting) == 1:
        return fitting[0]
    candidates = f"{', '.join(fitting)} all do" if fitting else "none does; allow `import` for one"
    raise Usage(f"which storage of {node} takes images to import is not clear ({candidates}); name one with --images")


def _format_and_digest(file: Path) -> tuple[str, str]:
    """The format and the SHA-256 of an image here."""
    try:
        with file.open("rb") as content:
            first, digest = content.read(len(_QCOW2)), hashlib.sha256()
            content.seek(0)
            while chunk := content.read(1 << 20):
                digest.update(chunk)
    except OSError as error:
        raise Usage(f"--from {file}: cannot be read: {error.strerror}") from error
    if first == _QCOW2:
        return "qcow2", digest.hexdigest()
    if file.suffix.lower() in (".raw", ".img"):
        return "raw", digest.hexdigest()
    raise Usage(f"--from {file} is neither a qcow2 image nor called .raw or .img; convert it with qemu-img")
