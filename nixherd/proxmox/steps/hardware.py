"""Changing a guest's options, devices and disks."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from nixherd.base.errors import ApiError, OutcomeUnknown, Undecided
from nixherd.base.names import format_size
from nixherd.proxmox.answers import Upid
from nixherd.proxmox.calls import Guests
from nixherd.proxmox.config import VmConfig
from nixherd.proxmox.route import Effect, Kind, each, on_container, on_guests, on_vm
from nixherd.proxmox.steps.base import QEMU, Change, Row, Step, listed, sent

GIB = 1 << 30


def whole_gib(size: int) -> int:
    """Round a size in bytes up to GiB: the API makes volumes of whole ones."""
    return -(-size // GIB)


# The options that are set from here, and how each is read. What no definition and no verb sets has no place here.

_COMMON = {
    **each(Kind.INTEGER, "cores memory"),
    **each(Kind.BOOLEAN, "onboot protection"),
    "startup": Kind.PROPERTIES,
    **each(Kind.TEXT, "description tags"),
}
_NAMES = each(Kind.TEXT, "nameserver searchdomain")
VM_OPTIONS = {
    **_COMMON,
    **_NAMES,
    **each(Kind.INTEGER, "balloon sockets"),
    "ciupgrade": Kind.BOOLEAN,
    **each(Kind.NAME, "bios machine"),
    **each(Kind.PROPERTIES, "agent boot cpu"),
    **each(Kind.TEXT, "ciuser sshkeys"),
}
VM_DEVICES = {
    **each(Kind.DRIVE, "ide sata scsi virtio"),
    **each(Kind.PROPERTIES, "net ipconfig"),
    "hostpci": Kind.MAPPING,
}
CT_OPTIONS = {**_COMMON, "swap": Kind.INTEGER, "features": Kind.PROPERTIES}
CT_DEVICES = {"net": Kind.PROPERTIES}
_OF_A_CHANGE = {"digest": Kind.NAME, **each(Kind.OPTIONS, "delete revert")}
CONFIG = on_vm("PUT", "/config", Effect.CONFIG, {**VM_OPTIONS, **_OF_A_CHANGE}, indexed=VM_DEVICES) | on_container(
    *("PUT", "/config", Effect.CONFIG, {**CT_OPTIONS, **_NAMES, **_OF_A_CHANGE}), indexed=CT_DEVICES
)


@dataclass(frozen=True, slots=True)
class SetsOptions(Step):
    """A step that sets options, on the configuration with this digest where one is given."""

    at_once = True
    requests = CONFIG


@dataclass(frozen=True, slots=True)
class MakesChanges(SetsOptions):
    """A step that sets what differs, option by option."""

    changes: tuple[Change, ...]
    digest: str | None = None

    def parameters(self) -> Mapping[str, object]:
        return {**sent(self.changes), "digest": self.digest}

    @property
    def options(self) -> frozenset[str]:
        values = sent(self.changes)
        gone = str(values.pop("delete", ""))
        return frozenset(values) | frozenset(filter(None, gone.split(",")))


@dataclass(frozen=True, slots=True)
class Configure(MakesChanges):
    """Set what the definitions declare; `waits` names the options that a running guest takes up at its next start."""

    waits: tuple[str, ...] = ()
    row = Row.CONFIGURE

    def __str__(self) -> str:
        return f"set {listed(self.changes)}{' (from its next start on)' if self.waits else ''}"


@dataclass(frozen=True, slots=True)
class Mark(SetsOptions):
    """Put the line into the guest's notes that makes it ours; `description` is all of them with it."""

    line: str
    description: str
    digest: str | None = None

    def parameters(self) -> Mapping[str, object]:
        return {"description": self.description, "digest": self.digest}

    def __str__(self) -> str:
        return f"put `{self.line}` into the notes of {self.guest}"


@dataclass(frozen=True, slots=True)
class AddDisk(SetsOptions):
    """Give the guest a new, empty disk; `size` in bytes, whole GiB. `waits`: a running one gets it when it starts."""

    disk: str
    storage: str
    size: int
    volume_options: str = ""
    digest: str | None = None
    waits: bool = False
    row = Row.RESIZE

    def parameters(self) -> Mapping[str, object]:
        volume = f"{self.storage}:{whole_gib(self.size)}{',' if self.volume_options else ''}{self.volume_options}"
        return {self.disk: volume, "digest": self.digest}

    @property
    def options(self) -> frozenset[str]:
        return frozenset((self.disk,))

    def __str__(self) -> str:
        later = " (from its next start on)" if self.waits else ""
        return f"add {self.disk}, {format_size(self.size)} on {self.storage}{later}"


@dataclass(frozen=True, slots=True)
class OfDisk(Step):
    """A step that is done to one disk."""

    disk: str

    @property
    def touches(self) -> frozenset[str]:
        return frozenset((self.disk,))


@dataclass(frozen=True, slots=True)
class Resize(OfDisk):
    """Grow a disk; sizes in bytes."""

    before: int
    after: int
    digest: str | None = None
    row = Row.RESIZE
    at_once = True
    requests = on_guests(
        *("PUT", "/resize", Effect.DATA, {"disk": Kind.NAME, "size": Kind.SIZE, "digest": Kind.NAME}),
        required=("disk", "size"),
    )

    def parameters(self) -> Mapping[str, object]:
        return {"disk": self.disk, "size": format_size(self.after), "digest": self.digest}

    def __str__(self) -> str:
        return f"grow {self.disk} {format_size(self.before)} → {format_size(self.after)}"


@dataclass(frozen=True, slots=True)
class MoveDisk(OfDisk):
    """Move a disk to another storage, the guest running or not; `source` is the volume that goes, or is kept, then."""

    storage: str
    keep_source: bool = False
    digest: str | None = None
    source: str = ""
    requests = on_vm(
        *("POST", "/move_disk", Effect.DATA),
        {**each(Kind.NAME, "disk digest"), "storage": Kind.STORAGE, "delete": Kind.BOOLEAN},
        required=("disk",),
    )

    def parameters(self) -> Mapping[str, object]:
        return {"disk": self.disk, "storage": self.storage, "delete": not self.keep_source, "digest": self.digest}

    def __str__(self) -> str:
        kept = "stays as an unused disk" if self.keep_source else "is deleted then"
        return f"move {self.disk} to {self.storage}; {self.source or 'the old one'} {kept}"


# Cloud-init

REGENERATE = on_vm("PUT", "/cloudinit", Effect.CONFIG)


@dataclass(frozen=True, slots=True)
class Regenerate(Step):
    """Write the cloud-init drive of a running VM anew."""

    repeatable = False
    at_once = True
    requests = REGENERATE

    def begin(self, client: Guests) -> Upid | None:
        _regenerate(client, self)
        return None

    def seen(self, client: Guests, node: str, config: VmConfig) -> Iterator[str]:
        differs = client.cloudinit_differs(node, self.vmid)
        yield f"its cloud-init drive {'is not' if differs else 'is'} as its options say"

    def __str__(self) -> str:
        return f"write the cloud-init drive of {self.guest} anew"


@dataclass(frozen=True, slots=True)
class CloudInit(MakesChanges):
    """Say who may log in, and how the machine gets its address; the drive of a running one is written anew."""

    running: bool = False
    row = Row.CLOUD_INIT

    def begin(self, client: Guests) -> Upid | None:
        Step.begin(self, client)
        if self.running:
            _regenerate(client, self)
        return None

    def __str__(self) -> str:
        return f"set cloud-init {listed(self.changes)}"


TRIES = 3  # of a request that may be sent again without harm


def _regenerate(client: Guests, step: Step) -> None:
    """Have the drive written, and see it. A second time it is the same drive, so a lost answer is asked for again.

    Raise Undecided when no answer came and the server does not tell that the drive says what the options say.
    """
    for last in range(1, TRIES + 1):
        try:
            client.change(REGENERATE[QEMU], step.names(), {}, at_once=True)
            return
        except OutcomeUnknown as error:
            try:
                if not client.cloudinit_differs(step.node, step.vmid):
                    return
                why = "the server says that it differs from the options"
            except ApiError as unseen:
                why = f"what it says could not be asked for ({unseen})"
            if last == TRIES:
                raise Undecided(
                    f"{step.guest}: whether its cloud-init drive was written anew is not known: {error}; {why}; look "
                    f"with `qm cloudinit pending {step.vmid}` on {step.node}, and run again"
                ) from error
