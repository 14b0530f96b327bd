"""The image that a template is made of: what is asked for, how it comes to a storage, and one clone that tries it.

The clone is booted, asked through its agent, and destroyed. Its notes say what it is and under which VMID: what a
killed run left is known by that, and removed by the next.
"""

import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from nixherd.base.errors import AgentUnavailable, ApiError, FleetError, NotVisible, OutcomeUnknown, Usage
from nixherd.base.names import DNS_NAME, is_a
from nixherd.base.waiting import Backoff, poll
from nixherd.fleet.models import DEFINITIONS, Fleet
from nixherd.proxmox.answers import ExecResult
from nixherd.proxmox.client import Client
from nixherd.proxmox.guest import tasks
from nixherd.proxmox.guest.identity import range_of
from nixherd.proxmox.guest.observe import template_node
from nixherd.proxmox.guest.storages import only_storage, require_place, storage_seen
from nixherd.proxmox.guest.tasks import Progress
from nixherd.proxmox.steps import Clone, Destroy, Start, Stop
from nixherd.proxmox.wire import TRANSIENT

FIRMWARES = ("ovmf", "seabios")
MADE_OF = "made of "  # with which the second line of its notes begins
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
        """Require exactly one source, and the SHA-256 of what a URL gives. Raise Usage for anything else."""
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
        """Return the VM's notes: whose it is, and what it was made of."""
        return f"{self.mark}\n{MADE_OF}{volume}, {self.bios}, on {self.storage}"

    @property
    def trial_name(self) -> str:
        return f"nixherd-trial-{self.vmid}"

    def trial_mark(self, vmid: int) -> str:
        """Return the line in a trial's notes; it names the clone's VMID, so that a copy of it does not count."""
        return f"nixherd fleet={self.fleet_id} trial={self.vmid} vmid={vmid}"


def template_spec(
    fleet: Fleet, source: Source, *, storage: str | None, bios: str | None, pool: str | None, trials: str, **rest: Any
) -> TemplateSpec:
    """Combine the definitions with options, which come first; `rest` as TemplateSpec has it.

    Raise Usage where neither says enough.
    """
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
    if not is_a(DNS_NAME, name):
        raise Usage(f"{DEFINITIONS}: template.name: {name} is not a DNS name, which a VM's name must be; rename it")
    span = range_of(fleet, trials)
    if not any(span.start in each and span.end in each for each in fleet.ranges):
        raise Usage(f"{trials} is in none of vmidRanges in {DEFINITIONS}; the guard lets a trial have no other VMID")
    bios, pool = bios or declared.bios or FIRMWARES[0], pool or declared.pool
    where = (template_node(fleet), declared.vmid, name, place, bios, pool)
    return TemplateSpec(*where, trials=trials, source=source, fleet_id=fleet.id, **rest)


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
    """Return the volume, and whether it exists; only GETs are sent. Raise Usage if it cannot be imported."""
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
    storage = spec.images or only_storage(client, spec.node, "import", "name one with --images")
    require_place(client, spec.node, storage, "import")
    # whose it is and what is in it, so that no file is taken for another one
    volume = f"{storage}:import/nixherd-{spec.vmid}-{sha256[:16]}.{form}"
    present = {row.volid for row in client.volumes(spec.node, storage, content="import")}
    return Image(volume, None if volume in present else sha256)


def bring(client: Client, spec: TemplateSpec, image: Image, timeout: float, progress: Progress) -> None:
    """Bring the image to its storage, and see it there. Raise TaskFailed on failure or another SHA-256."""
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
        raise Usage(f"--image {volume}: {spec.node} has no storage {storage} that is seen; write STORAGE:import/FILE")
    row = next((row for row in client.volumes(spec.node, storage) if row.volid == volume), None)
    if row is None:
        raise Usage(f"--image {volume} is not there; `nixherd vm storage {storage} --content import` lists what is")
    if row.content != "import":
        raise Usage(
            f"--image {volume} is content {row.content}; Proxmox VE imports disks from content `import` alone: "
            "allow that for a storage and put the image there (--url, or --from FILE)"
        )
    return Image(volume)


def _format_and_digest(file: Path) -> tuple[str, str]:
    """Return the format and the SHA-256 of an image file."""
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


AGENT_COMMANDS = ("guest-exec", "guest-exec-status", "guest-file-open", "guest-file-read", "guest-file-close")
AGENT_PAUSE = 1.0  # seconds between two questions to an agent that is on its way
_CLOUD_INIT_STATUS = ["cloud-init", "status", "--wait"]
_TRIED_BY = "tried with token "
_AGENT_ERROR = 500  # with which the server passes on what an agent says of a command
# What comes of an answer that the server's daemon cannot write down: glib's quotation marks around a missing command.
_UNSPEAKABLE = "Broken pipe (596)"

T = TypeVar("T")


def trials_left(client: Client, fleet: Fleet, spec: TemplateSpec) -> tuple[dict[int, str], tuple[int, ...]]:
    """Return other operators' trials, their tokens by VMID, and the VMIDs of those that our killed runs left.

    Only an unchanged trial in the range of trials counts: what somebody renamed or wrote on belongs to him.
    """
    span = range_of(fleet, spec.trials)
    known = {vm.vmid for vm in fleet.vms.values()} | {spec.vmid}
    rows = [row for row in client.resources() if row.vmid in span and row.vmid not in known and row.node == spec.node]
    others = {row.vmid: who for row in rows if (who := _whose(client, spec, row.vmid)) is not None}
    ours = tuple(vmid for vmid, who in others.items() if who == client.token_id)
    return {vmid: who for vmid, who in others.items() if vmid not in ours}, ours


def _whose(client: Client, spec: TemplateSpec, vmid: int) -> str | None:
    """Return the token with which a trial was made; None for what is not a trial (any more)."""
    try:
        config = client.config(spec.node, vmid)
    except NotVisible:  # ours could be seen
        return None
    if config is None or config.is_template or config.name != spec.trial_name:
        return None
    mark, *more = [line.strip() for line in config.description.strip().splitlines()] or [""]
    if mark != spec.trial_mark(vmid) or len(more) > 1 or not all(line.startswith(_TRIED_BY) for line in more):
        return None
    return more[0].removeprefix(_TRIED_BY) if more else client.token_id  # an older release did not say


def try_out(
    client: Client, spec: TemplateSpec, vmid: int, *, boots: float, timeout: float, progress: Progress
) -> list[str]:
    """Clone, boot, ask and destroy; return what the image lacks, a line each."""
    with client.making(spec.vmid, vmid):
        notes = f"{spec.trial_mark(vmid)}\n{_TRIED_BY}{client.token_id}"
        copy = (spec.trial_name, spec.vmid, spec.node, notes, spec.storage, spec.pool)
        tasks.carry_out(client, Clone(spec.node, vmid, *copy), timeout, progress)
        lacks: list[str] | None = None
        try:
            tasks.carry_out(client, Start(spec.node, vmid), timeout, progress)
            lacks = list(_lacks(client, spec, vmid, boots, progress))
        finally:
            try:
                remove_trial(client, spec, vmid, timeout=timeout, progress=progress)
            except FleetError as error:
                if lacks:
                    raise FleetError(
                        f"the image will not do: {'; '.join(lacks)}; its trial is not known to be gone: {error}"
                    ) from error
                if lacks is not None:
                    raise
                # what ended it is what to hear about
                progress(f"vm {vmid}, the trial, is not known to be gone: {error}")
        return lacks


def remove_trial(client: Client, spec: TemplateSpec, vmid: int, *, timeout: float, progress: Progress) -> None:
    """Destroy a trial, and see that it is gone. Raise FleetError when the VM is not our trial."""
    with client.making(spec.vmid, vmid):
        if _whose(client, spec, vmid) != client.token_id:
            raise FleetError(
                f"vm {vmid} is not our trial of template {spec.vmid} (any more): its name or notes say so; it is "
                "left alone, look at it by hand"
            )
        status = client.status(spec.node, vmid)
        if status is not None and status.running:
            tasks.carry_out(client, Stop(spec.node, vmid), timeout, progress)
        tasks.carry_out(client, Destroy(spec.node, vmid), timeout, progress)
        if client.config(spec.node, vmid) is not None:
            raise FleetError(f"vm {vmid}, the trial, is still there although its removal ended well; remove it by hand")


def _lacks(client: Client, spec: TemplateSpec, vmid: int, boots: float, progress: Progress) -> Iterator[str]:
    """Yield what the image lacks, as it says itself; no answer is an error."""
    progress(f"waiting for the guest agent of vm {vmid}, {boots:.0f} s at most")
    info = _patiently(boots, lambda: client.agent_info(spec.node, vmid))
    if info is None:
        yield f"no guest agent answered within {boots:.0f} s of its first boot"
        return
    enabled = {str(row["name"]): bool(row.get("enabled", True)) for row in info.get("supported_commands", ())}
    barred = [name for name in AGENT_COMMANDS if enabled and not enabled.get(name, False)]
    if barred:
        yield f"its guest agent does not allow {', '.join(barred)}"
        return
    progress("waiting for cloud-init")
    try:
        done = _patiently(boots, lambda: _cloud_init(client, spec, vmid, boots))
    except ApiError as error:
        if error.status != _AGENT_ERROR or isinstance(error, OutcomeUnknown):
            raise
        yield f"cloud-init cannot be asked: {error}"
        return
    if done is None:
        yield f"its guest agent did not answer any more within {boots:.0f} s"
    elif done.exitcode not in (0, 2):  # 2: done, with recoverable errors
        yield f"cloud-init failed ({done.exitcode}): {' '.join((done.stdout or done.stderr).split())[:200]}"


def _cloud_init(client: Client, spec: TemplateSpec, vmid: int, boots: float) -> ExecResult:
    """Return what cloud-init says when it is done. ApiError of status 500 when the guest has none."""
    for is_last in (False, True):
        try:
            return client.agent_exec(spec.node, vmid, _CLOUD_INIT_STATUS, timeout=boots)
        except AgentUnavailable as error:
            if _UNSPEAKABLE not in str(error):
                raise
            if is_last:
                raise ApiError(f"{error}; is it installed?", _AGENT_ERROR) from error
        client.agent_info(spec.node, vmid)  # it is not that nobody answers there
    raise AssertionError("the last try returns or raises")


def _patiently(boots: float, ask: Callable[[], T]) -> T | None:
    """Return what the agent answers; None when it does not answer for so many seconds.

    Raise OutcomeUnknown when the node did not answer in the end: that says nothing of the image.
    """
    silence: AgentUnavailable | None = None
    for _ in poll(boots, Backoff(AGENT_PAUSE, AGENT_PAUSE)):
        try:
            return ask()
        except AgentUnavailable as error:
            silence = error
    if silence is not None and silence.status in TRANSIENT:
        raise OutcomeUnknown(f"whether the image will do is not known: {silence}", silence.status) from silence
    return None
