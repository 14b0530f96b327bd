"""Pruning of backups: the marks of a retention (`keep-last=3,keep-daily=7`), and the calls that show and apply them."""

import time
from collections.abc import Callable
from typing import Any

from lab.api import archives
from lab.api.routes import Call, route
from lab.api.state import Storage
from lab.api.tasks import Task
from lab.api.volumes import parse_volid

_PATH = "/nodes/{node}/storage/{storage}/prunebackups"
# What two backups of the same period have in common; the newest of each period is kept.
_PERIODS: dict[str, Callable[[int], Any]] = {
    "keep-last": lambda ctime: ctime,
    "keep-hourly": lambda ctime: time.gmtime(ctime)[:4],
    "keep-daily": lambda ctime: time.gmtime(ctime)[:3],
    "keep-weekly": lambda ctime: time.strftime("%G %V", time.gmtime(ctime)),
    "keep-monthly": lambda ctime: time.gmtime(ctime)[:2],
    "keep-yearly": lambda ctime: time.gmtime(ctime)[0],
}


def retention(text: str) -> dict[str, int]:
    """Return how many to keep of each period; empty: keep all."""
    pairs = dict(part.split("=", 1) for part in text.split(",") if "=" in part)
    if pairs.get("keep-all", "0") not in ("0", "off", "no", "false"):
        return {}
    return {name: int(pairs[name]) for name in _PERIODS if int(pairs.get(name, 0)) > 0}


def marks(
    storage: Storage, keep: dict[str, int], vmid: int | None = None, kind: str | None = None
) -> list[dict[str, Any]]:
    """Return a row for each backup with its mark: keep, remove, or protected."""
    owners = {parse_volid(volid).vmid for volid, volume in list(storage.volumes.items()) if volume.content == "backup"}
    rows: list[dict[str, Any]] = []
    for owner in sorted(owner for owner in owners if owner is not None and vmid in (None, owner)):
        for each in ("qemu", "lxc"):
            if kind in (None, each):
                rows += _marked(storage, archives.of_guest(storage, owner, each), keep, owner, each)
    return rows


def _marked(storage: Storage, volids: list[str], keep: dict[str, int], vmid: int, kind: str) -> list[dict[str, Any]]:
    rows = []
    for volid in reversed(volids):
        volume = storage.volumes[volid]
        mark = "protected" if volume.protected else None
        rows.append({"volid": volid, "ctime": volume.ctime, "mark": mark, "type": kind, "vmid": vmid})
    for name, count in keep.items():
        _mark(rows, _PERIODS[name], count)
    for row in rows:
        row["mark"] = row["mark"] or ("remove" if keep else "keep")
    return rows


def _mark(rows: list[dict[str, Any]], period: Callable[[int], Any], count: int) -> None:
    """Keep the newest backup of each of `count` periods that do not have one yet."""
    covered = {period(row["ctime"]) for row in rows if row["mark"] == "keep"}
    begun: set[Any] = set()
    for row in rows:
        bucket = period(row["ctime"])
        if row["mark"] or bucket in covered:
            continue
        if bucket in begun:
            row["mark"] = "remove"
        elif len(begun) >= count:
            break
        else:
            begun.add(bucket)
            row["mark"] = "keep"


def _rows(call: Call) -> list[dict[str, Any]]:
    storage = call.emulator.volumes.storage(call.params["storage"])
    keep = retention(str(call.params.get("prune-backups") or storage.prune or ""))
    vmid = call.params.get("vmid")
    return marks(storage, keep, None if vmid is None else int(vmid), call.params.get("type"))


@route("GET", _PATH)
def show(call: Call) -> Any:
    return _rows(call)


@route("DELETE", _PATH)
def use(call: Call) -> Any:
    """Remove what the retention does not cover."""
    permissions, name, vmid = call.emulator.permissions, call.params["storage"], call.params.get("vmid")
    if vmid is None:
        permissions.require(call.user, f"/storage/{name}", ["Datastore.Allocate"])
    else:
        permissions.require(call.user, f"/storage/{name}", ["Datastore.AllocateSpace"])
        permissions.require(call.user, f"/vms/{vmid}", ["VM.Backup"])

    def work(task: Task) -> None:
        for row in _rows(call):
            if row["mark"] == "remove":
                task.write(f"removing backup '{row['volid']}'")
                archives.forget(call, row["volid"])

    ident = name if vmid is None else f"{vmid}@{name}"
    return call.emulator.tasks.start("prunebackups", ident, call.user, work)
