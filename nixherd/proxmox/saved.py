"""What a backup holds: as vzdump's log says while it is made, and as the archive itself says. Both must agree.

The log's lines are those of PVE::VZDump::QemuServer and PVE::VZDump::LXC (`include disk 'scsi0' 'VOLUME'`, `including
mount point mp0 ('/data') in backup`). A VM's archive lists its drives in lines `#qmdump#map:scsi0:drive-scsi0:…`, which
vzdump takes out of a guest's notes; a container's holds the root file system and the mount points that say `backup=1`.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nixherd.errors import ApiError
from nixherd.fleet.models import GuestType
from nixherd.proxmox.models import Upid, is_true, properties

if TYPE_CHECKING:
    from nixherd.proxmox.client import Client

_INCLUDED_DISK = re.compile(r"INFO: include disk '([a-z]+\d+)' '([^']+)'(?: .*)?", re.ASCII)
_INCLUDED_MOUNT = re.compile(r"INFO: including mount point (rootfs|mp\d+) \('.*'\) in backup", re.ASCII)
_MAPPED = re.compile(r"#qmdump#map:([a-z]+\d+):drive-[^:]*:[^:]*:[^:]*:", re.ASCII)
_OPTION = re.compile(r"([a-z][a-z_-]*\d*): (.*)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Saved:
    """The volumes, as they were named then, that a backup holds; `unknown` says why that cannot be told."""

    archive: str
    volumes: frozenset[str] = frozenset()
    unknown: str = ""

    def why_not(self, volume: str | None) -> str:
        """Why a volume cannot be had back from it; empty where it can."""
        if volume in self.volumes:
            return ""
        return self.unknown or "not in it"


def saved(client: "Client", node: str, archive: str, task: Upid | None, type: GuestType) -> Saved:
    """What the backup that this task made holds. Never an error: what cannot be read is not known."""
    if task is None:
        return Saved(archive, unknown="the task that made it is not known")
    try:
        log = client.task_log(task)
    except ApiError as error:
        return Saved(archive, unknown=f"its task's log cannot be read ({error})")
    try:
        text = client.archived_text(node, archive)
    except ApiError as error:
        return Saved(archive, unknown=f"what it holds cannot be read ({error})")
    return held(archive, text, log, type)


def held(archive: str, text: str, log: Iterable[str], type: GuestType) -> Saved:
    """What a backup holds, of the configuration in it and the lines of its task's log. Pure."""
    inside = dict(held_inside(text, type))
    logged = dict(_logged(log, inside, type))
    if not inside and not logged:
        return Saved(archive)
    if inside != logged:
        odd = sorted({name for name, _ in inside.items() ^ logged.items()})
        return Saved(
            archive,
            frozenset(inside.values()) & frozenset(logged.values()),
            f"its log and the archive do not say the same of {', '.join(odd)}",
        )
    return Saved(archive, frozenset(inside.values()))


def held_inside(text: str, type: GuestType) -> Iterator[tuple[str, str]]:
    """What the archive says that it holds: names of drives or mount points, and their volumes."""
    lines = text.splitlines()
    options = {match[1]: match[2] for line in lines if (match := _OPTION.fullmatch(line))}
    mapped = {match[1] for line in lines if (match := _MAPPED.fullmatch(line))}
    for name, value in options.items():
        values = properties(value, "file")
        volume = values.get("file") or values.get("volume") or ""
        if type is GuestType.QEMU:
            if name in mapped:
                yield name, volume
        elif name == "rootfs" or (
            re.fullmatch(r"mp\d+", name) and is_true(values.get("backup", 0)) and not volume.startswith("/")
        ):
            yield name, volume


def _logged(log: Iterable[str], inside: dict[str, str], type: GuestType) -> Iterator[tuple[str, str]]:
    """What the log says; it does not name the volumes of a container."""
    for line in log:
        if type is GuestType.QEMU:
            if match := _INCLUDED_DISK.fullmatch(line):
                yield match[1], match[2]
        elif match := _INCLUDED_MOUNT.fullmatch(line):
            yield match[1], inside.get(match[1], "")
