"""What a guest consists of: the volumes that go when it is destroyed, its snapshots, and what stays. Pure.

After `destroy_vm` of PVE::QemuServer and `destroy_lxc_container` of PVE::LXC: of the volumes that the configuration and
what is pending name, those in the guest's own name go, unused ones and saved memory with them. What a backup leaves out
is the rule of `get_backup_volumes` in PVE::QemuConfig and PVE::LXC::Config.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from nixherd.base.names import format_size
from nixherd.fleet.models import GuestType
from nixherd.proxmox.answers import Pending
from nixherd.proxmox.config import CT_DISKS, VM_DISKS, VmConfig, is_true, properties, size_or_none

_KEYS = {
    GuestType.QEMU: re.compile(rf"{VM_DISKS}|unused\d+|vmstate", re.ASCII),
    GuestType.LXC: re.compile(rf"{CT_DISKS}|unused\d+", re.ASCII),
}
_OWNERS = (
    re.compile(r"(?:^|/)(\d+)/[^/]+$", re.ASCII),  # 110/vm-110-disk-0.qcow2, whatever the file is called
    re.compile(r"(?:^|/)(?:vm|base|subvol|basevol)-(\d+)-[^/]*$", re.ASCII),
)
_NOBODYS = re.compile(r"(?:iso|vztmpl|snippets|import|backup)/")
BY_SNAPSHOT_ALONE = "named by it alone"  # servers of today leave such a volume where it is
_DIRECTORY = "a directory of the node"
_CLOUD_INIT = re.compile(r"[:/](?:vm-\d+-)?cloudinit(?:\.\w+)?$", re.ASCII)


@dataclass(frozen=True, slots=True)
class Part:
    """Something that goes with a guest, by the name that people call it: `scsi1`, `unused0`, `snapshot:clean`.

    `volume` is None for what a snapshot keeps within the guest's disks; `size` is bytes, None where it is not known.
    `unsaved` says why a backup leaves it out, empty where it does not; `remade`: nobody needs it back.
    """

    name: str
    volume: str | None = None
    size: int | None = None
    unsaved: str = ""
    remade: bool = False

    def shown(self, sizes: Mapping[str, int]) -> str:
        """Return it as people read it; `sizes` are those of volumes (bytes) that the configuration does not tell."""
        if self.volume is None:
            return self.name
        size = self.size or sizes.get(self.volume)
        notes = [format_size(size) if size else "?", *([self.unsaved] if self.unsaved else [])]
        return f"{self.name} {self.volume} ({', '.join(notes)})"


@dataclass(frozen=True, slots=True)
class Stay:
    """Something that a guest uses, or that has its name, and that is not destroyed with it."""

    name: str
    what: str
    why: str

    def __str__(self) -> str:
        return f"{f'{self.name} ' if self.name else ''}{self.what} ({self.why})"


@dataclass(frozen=True, slots=True)
class Belongings:
    """What goes with a guest, and what stays. A name may have several parts: a snapshot's memory, a pending disk.

    `sizes` are those of volumes (bytes) that only their storage tells, `texts` the options as they are, by name.
    """

    parts: tuple[Part, ...] = ()
    stays: tuple[Stay, ...] = ()
    sizes: Mapping[str, int] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(part.name for part in self.parts))

    @property
    def volumes(self) -> frozenset[str]:
        return frozenset(part.volume for part in self.parts if part.volume)

    def shown(self, parts: Iterable[Part]) -> str:
        """Return parts of this, as people read them."""
        return ", ".join(part.shown(self.sizes) for part in parts)


def owner(volume: str) -> int | None:
    """Return the VMID in whose name a volume is; None where its name does not tell."""
    name = volume.partition(":")[2]
    match = next((hit for pattern in _OWNERS if (hit := pattern.search(name))), None)
    return int(match[1]) if match else None


def belongings(
    type: GuestType,
    vmid: int,
    config: VmConfig,
    *,
    pending: Iterable[Pending] = (),
    snapshots: Mapping[str, VmConfig] | None = None,
) -> Belongings:
    """Return what goes with the guest of this configuration; `pending` and `snapshots` are looked at as well.

    A volume whose name does not tell whose it is counts as the guest's: rather one too many is named.
    """
    result, rows = _Collector(type, vmid), {row.key: row for row in pending}
    for key, text in _sorted(config):
        result.add(key, text, _left_out(type, key, text, config) or _left_out_then(type, rows.get(key), text, config))
    for row in rows.values():
        if row.after is not None:
            result.add(row.key, row.after, "pending")
    for snapshot, its in (snapshots or {}).items():
        name = f"snapshot:{snapshot}"
        result.parts.append(Part(name, unsaved="a snapshot"))
        for key, text in _sorted(its):
            result.add(key, text, "its memory" if key == "vmstate" else BY_SNAPSHOT_ALONE, name=name)
    mounts = (row[1] for row in config.values.get("lxc") or () if list(row)[:1] == ["lxc.mount.entry"])
    stays = (*result.stays, *(Stay("lxc.mount.entry", str(mount).split()[0], _DIRECTORY) for mount in mounts))
    return Belongings(tuple(result.parts), stays, texts={key: str(value) for key, value in config.values.items()})


def _sorted(config: VmConfig) -> list[tuple[str, str]]:
    """Return the options as text, `scsi2` before `scsi10`."""
    return sorted(((key, str(value)) for key, value in config.values.items()), key=lambda pair: _order(pair[0]))


def _order(key: str) -> tuple[str, int]:
    word = key.rstrip("0123456789")
    return word, int(key[len(word) :] or 0)


def _left_out(type: GuestType, key: str, text: str, config: VmConfig) -> str:
    """Return why a backup does not hold what an option names; empty where it does."""
    values = properties(text, "file")
    if key == "vmstate":
        return "saved memory"
    if key.startswith("unused"):
        return "unused"
    if type is GuestType.LXC:
        return "" if key == "rootfs" or is_true(values.get("backup", 0)) else "without backup=1"
    if key == "efidisk0" and config.bios != "ovmf":
        return "without bios=ovmf"
    return "" if is_true(values.get("backup", 1)) else "backup=0"


def _left_out_then(type: GuestType, row: Pending | None, text: str, config: VmConfig) -> str:
    """Tell why a backup leaves out what an option names, with what waits in force: the server sees to that first."""
    if row is None or row.key.startswith("unused"):
        return ""
    if row.after is None:
        return "taken away at its next start"
    now, then = (properties(each, "file") for each in (text, row.after))
    if (now.get("file") or now.get("volume")) != (then.get("file") or then.get("volume")):
        return "replaced at its next start"
    why = _left_out(type, row.key, row.after, config)
    return f"{why} from its next start" if why else ""


class _Collector:
    """What was found so far."""

    def __init__(self, type: GuestType, vmid: int) -> None:
        self.type, self.vmid = type, vmid
        self.parts: list[Part] = []
        self.stays: list[Stay] = []

    def add(self, key: str, text: str, unsaved: str, *, name: str | None = None) -> None:
        """Add what an option names, unless it is known; a snapshot's under the snapshot's `name`."""
        if not _KEYS[self.type].fullmatch(key):
            return
        values = properties(text, "file")
        volume = values.get("file") or values.get("volume") or ""
        if volume in ("", "none", "cdrom") or any(part.volume == volume for part in self.parts):
            return
        why = self._why_it_stays(volume, values)
        if why:
            if name is None:
                self.stays.append(Stay(key, volume, why))
            return
        remade = self.type is GuestType.QEMU and is_cloudinit(volume)
        size = size_or_none(values.get("size"))
        self.parts.append(Part(name or key, volume, size, "" if remade else unsaved, remade))

    def _why_it_stays(self, volume: str, values: Mapping[str, str]) -> str:
        if volume.startswith("/"):
            bound = self.type is GuestType.LXC and not volume.startswith("/dev/")
            return _DIRECTORY if bound else "a device or file of the node"
        if _NOBODYS.match(volume.partition(":")[2]):
            return "no guest's"
        if self.type is GuestType.QEMU and values.get("media") == "cdrom" and not is_cloudinit(volume):
            return "a CD-ROM"
        other = owner(volume)
        return "" if other in (None, self.vmid) else f"of guest {other}"


def is_cloudinit(volume: str) -> bool:
    """Tell whether a volume is a cloud-init drive, which is written anew whenever it is needed."""
    return _CLOUD_INIT.search(volume) is not None
