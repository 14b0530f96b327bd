"""The image on a storage of the node: the one that is there, fetched by the node, or sent from here; seen there."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from nixherd.errors import FleetError, Usage
from nixherd.proxmox.client import Client
from nixherd.proxmox.guest import tasks
from nixherd.proxmox.guest.storages import require_place, storage_seen
from nixherd.proxmox.guest.tasks import Progress
from nixherd.proxmox.template.wanted import Wanted

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


def image_of(client: Client, wanted: Wanted) -> Image:
    """Which volume it is, and whether it is there. Usage for what no disk can be imported from; only GETs are sent."""
    source = wanted.source
    if source.volume is not None:
        return _there(client, wanted, source.volume)
    if source.url is not None:
        suffix = Path(urlsplit(source.url).path).suffix.lower()
        if suffix not in _FORMATS:
            known = ", ".join(_FORMATS)
            raise Usage(f"--url {source.url}: ends with {suffix or 'no suffix'}, and not with one of {known}")
        form, sha256 = _FORMATS[suffix], str(source.sha256)
    else:
        assert source.file is not None
        form, sha256 = _about(source.file)
    storage = wanted.images or _only_storage(client, wanted.node)
    require_place(client, wanted.node, storage, "import")
    # whose it is and what is in it, so that no file is taken for another one
    volume = f"{storage}:import/nixherd-{wanted.vmid}-{sha256[:16]}.{form}"
    there = {row.volid for row in client.volumes(wanted.node, storage, content="import")}
    return Image(volume, None if volume in there else sha256)


def bring(client: Client, wanted: Wanted, image: Image, timeout: float, progress: Progress) -> None:
    """Have the image on its storage, and see it there. TaskFailed when it cannot be had, or has another SHA-256."""
    assert image.sha256 is not None
    source, place = wanted.source, (wanted.node, image.storage)
    if source.url is not None:
        upid = client.download(*place, source.url, image.filename, image.sha256)
    else:
        assert source.file is not None
        upid = client.upload(*place, source.file, image.filename, image.sha256)
    tasks.wait(client, upid, timeout, progress)
    if image.volume not in {row.volid for row in client.volumes(*place, content="import")}:
        raise FleetError(f"{image.volume} is not there, whatever its task says; look at `pvesm list {image.storage}`")


def _there(client: Client, wanted: Wanted, volume: str) -> Image:
    storage = volume.partition(":")[0]
    if ":" not in volume or storage_seen(client, wanted.node, storage) is None:
        raise Usage(
            f"--image {volume}: {wanted.node} has no storage {storage} that this token may see; write "
            "STORAGE:import/FILE"
        )
    row = next((row for row in client.volumes(wanted.node, storage) if row.volid == volume), None)
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
    found = f"{', '.join(fitting)} all do" if fitting else "none does; allow `import` for one"
    raise Usage(f"which storage of {node} takes images to import is not clear ({found}); name one with --images")


def _about(file: Path) -> tuple[str, str]:
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
