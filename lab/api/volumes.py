"""Volumes: naming, creating, cloning, growing and removing them, with the log lines of each storage type."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lab.api.errors import ApiError
from lab.api.state import State, Storage, Volume

if TYPE_CHECKING:
    from lab.api.faults import Faults
    from lab.api.locks import Locks
    from lab.api.tasks import Task
    from lab.backend import Backend

CLOUDINIT_SIZE = 4 << 20
_DIRECTORY = re.compile(r"(?P<vmid>\d+)/")
_BACKUP = re.compile(r"backup/vzdump-\w+-(?P<vmid>\d+)-")
_OWNED = re.compile(r"(?:vm|base|subvol)-(?P<vmid>\d+)-(?P<what>disk-\d+|cloudinit|state-\w+)")
Log = Callable[[str], None]


def _no_log(_line: str) -> None:
    pass


def _has_content(volid: str) -> bool:
    """Return whether the volume's content is stored. Cloud-init drives and saved memory have none."""
    return not re.search(r"-cloudinit(\.|$)|-state-", volid)


@dataclass(frozen=True)
class VolumeId:
    """The parts of a volid: `STORAGE:[BASE/]NAME`, both with the owner's directory on file storages."""

    storage: str
    base: str | None
    name: str

    @property
    def vmid(self) -> int | None:
        match = _OWNED.match(self.name.rpartition("/")[2]) or _DIRECTORY.match(self.name) or _BACKUP.match(self.name)
        return int(match["vmid"]) if match else None

    @property
    def is_base(self) -> bool:
        return self.name.rpartition("/")[2].startswith("base-")


def parse_volid(volid: str) -> VolumeId:
    """Return the parts of a volid. Raises ApiError if it is malformed."""
    storage, separator, rest = volid.partition(":")
    if not separator or not rest:
        raise ApiError(f"unable to parse volume ID '{volid}'")
    match = re.fullmatch(r"(?:(?P<base>(?:\d+/)?base-[^/]+)/)?(?P<name>(?:\d+/)?[^/]+|\w+/.+)", rest)
    return VolumeId(storage, match["base"] if match else None, match["name"] if match else rest)


def human(size: int) -> str:
    value, units = float(size), iter(("B", "KiB", "MiB", "GiB", "TiB"))
    unit = next(units)
    while value >= 1024:
        value, unit = value / 1024, next(units)
    return f"{value:.1f} {unit}"


class Volumes:
    """Changes volumes in the state and in the backend."""

    def __init__(self, state: State, locks: "Locks", backend: "Backend", faults: "Faults") -> None:
        self._state, self._locks, self._backend, self._faults = state, locks, backend, faults

    def storage(self, name: str) -> Storage:
        if name not in self._state.storages:
            raise ApiError(f"storage '{name}' does not exist")
        return self._state.storages[name]

    def activated(self, name: str) -> Storage:
        """Return the storage for use. Raises ApiError when it is disabled or cannot be activated."""
        storage = self.storage(name)
        self._require_usable(storage)
        return storage

    @staticmethod
    def _require_usable(storage: Storage) -> None:
        if storage.obstacle:
            raise ApiError(storage.obstacle)

    def find(self, volid: str) -> Volume | None:
        storage = self._state.storages.get(volid.partition(":")[0])
        return storage.volumes.get(volid) if storage else None

    def get(self, volid: str) -> Volume:
        volume = self.find(volid)
        if volume is None:
            raise ApiError(f"volume '{volid}' does not exist")
        return volume

    def path(self, volid: str) -> str:
        """Return the volume's path on the node."""
        parsed = parse_volid(volid)
        storage = self.storage(parsed.storage)
        if not storage.on_files:
            return (
                f"/dev/zvol/{storage.name}/{parsed.name}"
                if storage.type == "zfspool"
                else f"/dev/{storage.name}/{parsed.name}"
            )
        kind, _, name = parsed.name.partition("/")
        folders = {
            "iso": "template/iso",
            "vztmpl": "template/cache",
            "import": "import",
            "snippets": "snippets",
            "backup": "dump",
        }
        return f"{storage.path}/{folders[kind]}/{name}" if kind in folders else f"{storage.path}/images/{parsed.name}"

    def format_for(self, storage: Storage, requested: str | None) -> str:
        """Return the format that a volume gets on that storage: block devices are raw."""
        return (requested or "raw") if storage.on_files else "raw"

    def allocate(
        self, storage: Storage, vmid: int, size: int, form: str | None, *, name: str | None = None, log: Log = _no_log
    ) -> str:
        """Create an empty volume and return its volid. `name` has no extension (`vm-110-cloudinit`); default: next free
        disk.
        """
        self._require_usable(storage)
        form = self.format_for(storage, form)
        with self._locks.storage(storage.name):
            volid = self._volid(storage, vmid, name or self._free_name(storage, vmid), form)
            if volid in storage.volumes:
                raise ApiError(f"disk image '{self.path(volid)}' already exists")
            volume = Volume("images", form, size, used=0, ctime=self._state.clock.seconds())
            self._require_space(storage, volid, storage.charge(volume))
            log_line = self._made(storage, volid, volume)
            if log_line:
                log(log_line)
            if _has_content(volid):
                self._backend.create_volume(volid, size)
            storage.volumes[volid] = volume
        return volid

    def allocate_named(self, storage: Storage, volid: str, volume: Volume) -> None:
        """Create a volume under a name that the caller chose."""
        self._require_usable(storage)
        with self._locks.storage(storage.name):
            if volid in storage.volumes:
                raise ApiError(f"disk image '{self.path(volid)}' already exists")
            self._require_space(storage, volid, storage.charge(volume))
            if volume.content == "images":
                self._backend.create_volume(volid, volume.size)
            storage.volumes[volid] = volume

    def copy(
        self,
        source: str,
        storage: Storage,
        vmid: int,
        form: str | None,
        log: Log,
        task: "Task | None" = None,
        *,
        mirror: str | None = None,
    ) -> str:
        """Copy a disk in full; the task's log shows progress. `mirror` names the drive of a running VM."""
        original = self.get(source)
        self._require_usable(self.storage(parse_volid(source).storage))
        self._require_usable(storage)
        form = self.format_for(storage, form or original.format)
        with self._locks.storage(storage.name):
            volid = self._volid(storage, vmid, self._free_name(storage, vmid), form)
            volume = Volume("images", form, original.size, original.used, self._state.clock.seconds())
            self._require_space(storage, volid, storage.charge(volume))
            storage.volumes[volid] = volume
        line = self._made(storage, volid, volume)
        if line:
            log(line)
        if self._state.version >= 9:
            log(f"allocated target volume '{volid}'")
        total, head = human(original.size), f"mirror-{mirror}: " if mirror else ""
        log(f"drive mirror is starting for drive-{mirror}" if mirror else f"transferred 0.0 B of {total} (0.00%)")
        if task:
            done = f"{head}transferred {{}} of {total} ({{:.2f}}%)"
            task.pace(lambda part: done.format(human(int(original.size * part)), part * 100))
        self._backend_or_forget(storage, volid, lambda: self._backend.clone_volume(source, volid, original.size))
        if mirror:
            log(f"{head}transferred {total} of {total} (100.00%) in 0s, ready")
            log("all 'mirror' jobs are ready")
            for line in ("Completing block job...", "Completed successfully.", "mirror-job finished"):
                log(f"{head}{line}")
        else:
            log(f"transferred {total} of {total} (100.00%)")
        return volid

    def link(self, source: str, vmid: int, log: Log) -> str:
        """Create a linked clone of a template's disk on the same storage."""
        original, parsed = self.get(source), parse_volid(source)
        storage = self.storage(parsed.storage)
        self._require_usable(storage)
        form = "qcow2" if storage.on_files else original.format  # on file storages only qcow2 supports a backing file
        with self._locks.storage(storage.name):
            name = self._free_name(storage, vmid)
            volid = self._linked_volid(storage, parsed, vmid, name, form)
            parent = f"../{parsed.name}" if storage.on_files else parsed.name
            volume = Volume("images", form, original.size, 0, self._state.clock.seconds(), parent)
            storage.volumes[volid] = volume
        if storage.on_files:
            image = f"{name}.{form}"
            log(f"clone {parsed.name}: images, {image}, {vmid} to {image} (base={parent})")
            log(self._formatting(storage, volid, volume))
        elif storage.type == "lvmthin":
            log(f'  Logical volume "{name}" created.')
        self._backend_or_forget(storage, volid, lambda: self._backend.clone_volume(source, volid, original.size))
        return volid

    def resize(self, volid: str, size: int) -> None:
        """Grow the volume."""
        volume = self.get(volid)
        storage = self.activated(parse_volid(volid).storage)
        grown = Volume(volume.content, volume.format, size, volume.used)
        self._require_space(storage, volid, storage.charge(grown) - storage.charge(volume))
        self._backend.resize_volume(volid, size)
        volume.size, volume.ctime = size, self._state.clock.seconds()

    def remove(self, volid: str) -> None:
        """Remove the volume. A missing volume is not an error, a base with linked clones is."""
        storage = self.activated(parse_volid(volid).storage)
        with self._locks.storage(storage.name):
            if self.is_in_use(volid):
                raise ApiError(f"base volume '{volid}' is still in use by linked cloned")
            if storage.volumes.pop(volid, None) and _has_content(volid):
                self._backend.delete_volume(volid)

    def is_in_use(self, volid: str) -> bool:
        """Return whether the volume is the base of a linked clone."""
        parsed = parse_volid(volid)
        storage = self.storage(parsed.storage)
        parents = {volume.parent for volume in list(storage.volumes.values()) if volume.parent}
        return parsed.is_base and bool(parents & {parsed.name, f"../{parsed.name}"})

    def to_base(self, volid: str) -> str:
        """Rename the disk of a VM that becomes a template; return the new volid."""
        parsed = parse_volid(volid)
        if parsed.is_base:
            return volid
        storage = self.storage(parsed.storage)
        base = re.sub(r"(^|/)vm-", r"\1base-", parsed.name)
        target = f"{storage.name}:{base}"
        with self._locks.storage(storage.name):
            self._backend.clone_volume(volid, target, self.get(volid).size)
            self._backend.delete_volume(volid)
            storage.volumes[target] = storage.volumes.pop(volid)
            storage.volumes[target].parent = None
        return target

    def rename(self, volid: str, target: str) -> None:
        """Rename a volume, possibly to another storage; a running machine keeps using it."""
        old, new = self.storage(parse_volid(volid).storage), self.storage(parse_volid(target).storage)
        self._backend.rename_volume(volid, target)
        new.volumes[target] = old.volumes.pop(volid)

    def swap(self, volid: str, copy: str) -> None:
        """Swap the names of a running machine's disk and its copy; the machine continues under the copy's name."""
        aside = f"{copy}.aside"
        for source, target in ((copy, aside), (volid, copy), (aside, volid)):
            self._backend.rename_volume(source, target)

    def free_volid(self, storage: Storage, vmid: int, form: str | None) -> str:
        """Return the name of a VM's next disk on that storage."""
        return self._volid(storage, vmid, self._free_name(storage, vmid), self.format_for(storage, form))

    def require_space(self, storage: Storage, volid: str, size: int) -> None:
        self._require_space(storage, volid, size)

    def of_vm(self, vmid: int) -> list[str]:
        """List all volumes that belong to a VMID."""
        return [
            volid
            for storage in self._state.storages.values()
            for volid, volume in list(storage.volumes.items())
            if volume.content in ("images", "rootdir") and parse_volid(volid).vmid == vmid
        ]

    def _backend_or_forget(self, storage: Storage, volid: str, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException:
            storage.volumes.pop(volid, None)
            raise

    def _free_name(self, storage: Storage, vmid: int) -> str:
        taken = {
            match["what"]
            for volid in list(storage.volumes)
            for match in _OWNED.finditer(volid)
            if match["vmid"] == str(vmid)
        }
        return next(f"vm-{vmid}-disk-{n}" for n in range(1000) if f"disk-{n}" not in taken)

    @staticmethod
    def _volid(storage: Storage, vmid: int, name: str, form: str) -> str:
        return f"{storage.name}:{vmid}/{name}.{form}" if storage.on_files else f"{storage.name}:{name}"

    @staticmethod
    def _linked_volid(storage: Storage, base: VolumeId, vmid: int, name: str, form: str) -> str:
        if storage.on_files:
            return f"{storage.name}:{base.name}/{vmid}/{name}.{form}"
        return f"{storage.name}:{base.name}/{name}" if storage.type == "zfspool" else f"{storage.name}:{name}"

    def _made(self, storage: Storage, volid: str, volume: Volume) -> str:
        """Log what creating the volume logs."""
        if storage.on_files:
            return self._formatting(storage, volid, volume)
        return f'  Logical volume "{parse_volid(volid).name}" created.' if storage.type in ("lvm", "lvmthin") else ""

    def _formatting(self, storage: Storage, volid: str, volume: Volume) -> str:
        path = f"{storage.path}/images/{parse_volid(volid).name}"
        on_raw = (volume.parent or "").endswith(".raw")
        if volume.format != "qcow2":
            return f"Formatting '{path}', fmt={volume.format} size={volume.size} preallocation=off"
        extended = bool(volume.parent) and self._state.version >= 9
        words = [f"Formatting '{path}', fmt=qcow2 cluster_size={131072 if extended else 65536}"]
        words.append(f"extended_l2={'on' if extended else 'off'}")
        preallocation = "off" if on_raw else "metadata"
        words += [f"preallocation={preallocation}"] if not volume.parent or extended else []
        words.append(f"compression_type=zlib size={volume.size}")
        words += [f"backing_file={volume.parent} backing_fmt={'raw' if on_raw else 'qcow2'}"] if volume.parent else []
        return " ".join([*words, "lazy_refcounts=off refcount_bits=16"])

    def _require_space(self, storage: Storage, volid: str, requested: int) -> None:
        """Raise ApiError with the storage's text when it is full."""
        full = self._faults.is_on("storage-full") and self._faults.is_on("storage-full", storage=storage.name)
        if requested <= storage.avail and not full:
            return
        name = parse_volid(volid).name
        if storage.type == "zfspool":
            raise ApiError(f"zfs error: cannot create '{storage.name}/{name}': out of space")
        if storage.type == "lvm":
            extents = [-(-size // (4 << 20)) for size in (storage.avail, requested)]
            raise ApiError(
                f"lvcreate '{storage.name}/{name}' error:   Volume group \"{storage.name}\" "
                f"has insufficient free space ({extents[0]} extents): {extents[1]} required."
            )
        if storage.type == "lvmthin":
            why = f"Cannot create new thin volume, free space in thin pool {storage.name}/data reached threshold."
            raise ApiError(f"lvcreate '{storage.name}/{name}' error:   {why}")
        raise ApiError(f"unable to create image: qemu-img: {self.path(volid)}: No space left on device")
