"""Backups. No recording is behind any of this: the schema and PVE::VZDump are.

An archive holds what the guest's configuration said and a copy of each of its volumes, so that a restore brings both
back; it is one volume of the storage's content, and its copies are the backend's, under names of the archive.
"""

import re
import time
from collections.abc import Callable
from typing import Any

from lab.api import drives
from lab.api.agent import is_configured
from lab.api.errors import ApiError, ParameterError
from lab.api.formats import split_list
from lab.api.routes import Call, route
from lab.api.state import Storage, Vm, Volume
from lab.api.tasks import Task
from lab.api.volume_access import require_readable
from lab.api.volumes import Volumes, human, parse_volid

_ROOT_ONLY = ("tmpdir", "dumpdir", "script", "job-id")
_EXTENSIONS = {"0": "", "1": ".lzo", "lzo": ".lzo", "gzip": ".gz", "zstd": ".zst"}
_SHRINKS = 2  # how much smaller than the guest's used bytes an archive is


@route("GET", "/nodes/{node}/vzdump/defaults")
def defaults(call: Call) -> Any:
    return {"mode": "snapshot", "remove": 1, "notes-template": "{{guestname}}", "compress": "0"}


@route("POST", "/nodes/{node}/vzdump")
def vzdump(call: Call) -> Any:
    params = call.params
    for name in _ROOT_ONLY:
        if name in params and not call.user.is_root:
            raise ParameterError({name: "Only root may set this option."})
    if params.get("all") or "pool" in params:
        raise ApiError("backups of all guests or of a pool are not part of the lab")
    vmids = [int(vmid) for vmid in split_list(str(params.get("vmid", "")))]
    if not vmids:
        raise ParameterError({"vmid": "property is missing and it is not optional"})
    _require_parameters(call)
    storage = _storage(call)
    ident = vmids[0] if len(vmids) == 1 else ""
    return call.emulator.tasks.start("vzdump", ident, call.user, lambda task: _work(call, task, vmids, storage))


def _storage(call: Call) -> Storage:
    name = call.params.get("storage", "local")
    call.emulator.permissions.require(call.user, f"/storage/{name}", ["Datastore.AllocateSpace"])
    storage = call.emulator.volumes.storage(name)
    if "backup" not in storage.content.split(","):
        raise ApiError(f"storage '{name}' does not support backups")
    return storage


def _require_parameters(call: Call) -> None:
    """What only some may ask for: pruning needs Datastore.Allocate, the node's resources Sys.Modify."""
    permissions = call.emulator.permissions
    if any(name in call.params for name in ("bwlimit", "ionice", "performance")):
        permissions.require(call.user, "/", ["Sys.Modify"])
    if "prune-backups" in call.params:
        permissions.require(call.user, f"/storage/{call.params.get('storage', 'local')}", ["Datastore.Allocate"])


def _work(call: Call, task: Task, vmids: list[int], storage: Storage) -> None:
    task.write(f"INFO: starting new backup job: vzdump {_command(call, vmids)}")
    for vmid in vmids:
        call.emulator.permissions.require(call.user, f"/vms/{vmid}", ["VM.Backup"])
    failed = []
    for vmid in vmids:
        try:
            _one(call, task, vmid, storage)
        except ApiError as error:
            task.write(f"ERROR: Backup of VM {vmid} failed - {error.message}")
            failed.append(error.message)
    task.write("INFO: Backup job finished with errors" if failed else "INFO: Backup job finished successfully")
    if failed:
        raise ApiError("job errors" if len(vmids) > 1 or len(failed) > 1 else failed[0])


def _command(call: Call, vmids: list[int]) -> str:
    given = {key: value for key, value in call.params.items() if key not in ("vmid", "node")}
    shown = {**given, "node": call.emulator.state.name_of(call.node)}
    return " ".join([*map(str, vmids), *(f"--{key} {value}" for key, value in shown.items())])


def _one(call: Call, task: Task, vmid: int, storage: Storage) -> None:
    state, began = call.emulator.state, time.monotonic()
    vm = state.vms.get(vmid)
    node = state.name_of(call.node)
    if vm is None or vm.node != node:
        raise ApiError(f"unable to find VM '{vmid}'")
    task.write(
        f"INFO: Starting Backup of VM {vmid} ({vm.type})", f"INFO: status = {'running' if vm.running else 'stopped'}"
    )
    with call.emulator.locks.config(vmid):
        call.emulator.require_unlocked(vm)
        vm.config["lock"] = "backup"
    try:
        volid = _archive(call, task, vm, storage)
    finally:
        if not task.dies:
            vm.config.pop("lock", None)
    if call.params.get("remove", 1):
        _prune(call, task, vm, storage)
    seconds = int(time.monotonic() - began)
    kind = "VM" if vm.type == "qemu" else "CT"
    task.write(f"INFO: Finished Backup of {kind} {vmid} ({time.strftime('%H:%M:%S', time.gmtime(seconds))})")
    assert volid in storage.volumes


def _archive(call: Call, task: Task, vm: Vm, storage: Storage) -> str:
    """Make the archive; nothing of it is left when that fails."""
    emulator, volumes = call.emulator, call.emulator.volumes
    volid = _name(call, vm, storage)
    config = {key: value for key, value in vm.config.items() if key not in ("lock", "parent", "vmstate")}
    disks = dict(_disks(vm))
    total = sum(volumes.get(source).size for source in disks.values())
    used = sum(volumes.get(source).used for source in disks.values())
    task.write(f"INFO: creating vzdump archive '{volumes.path(volid)}'")
    if vm.running and is_configured(vm.config) and vm.type == "qemu":
        task.write("INFO: issuing guest-agent 'fs-freeze' command", "INFO: issuing guest-agent 'fs-thaw' command")
    copies: list[str] = []
    size = max(1 << 20, used // _SHRINKS)
    try:
        volumes.require_space(storage, volid, size)
        task.pace(_percentages(total))
        for name, source in disks.items():
            copy = content_of(volid, name)
            emulator.backend.clone_volume(source, copy, volumes.get(source).size)
            copies.append(copy)
        task.write(f"INFO: 100% ({human(total)} of {human(total)}) in 1s")
        task.linger()
    except Exception:
        for copy in copies:
            emulator.backend.delete_volume(copy)
        raise
    volume = Volume("backup", volid.partition("-")[2].partition(".")[2], size, size, emulator.state.clock.seconds())
    volume.node, volume.protected = vm.node, bool(call.params.get("protected"))
    volume.notes = _notes(call, vm)
    about = {name: _about(volumes, source) for name, source in disks.items()}
    volume.archive = {"type": vm.type, "config": config, "disks": about}
    storage.volumes[volid] = volume
    task.write(f"INFO: archive file size: {human(size)}")
    return volid


def content_of(volid: str, disk: str) -> str:
    """The name under which the backend keeps what an archive holds of a disk."""
    return f"{volid}#{disk}"


def _about(volumes: Volumes, source: str) -> dict[str, Any]:
    volume = volumes.get(source)
    return {"size": volume.size, "used": volume.used, "format": volume.format, "storage": parse_volid(source).storage}


def _disks(vm: Vm) -> list[tuple[str, str]]:
    """The volumes that a backup holds: `backup=0` leaves a disk out; mount points are in only with `backup=1`."""
    found = []
    for name, value in sorted(vm.config.items()):
        is_disk = drives.is_drive(name) if vm.type == "qemu" else re.fullmatch(r"rootfs|mp\d+", name) is not None
        if not is_disk:
            continue
        drive = drives.parse(str(value))
        default = "0" if name.startswith("mp") else "1"
        if ":" in drive["file"] and not drives.is_cdrom(drive) and drive.get("backup", default) == "1":
            found.append((name, drive["file"]))
    return found


def _name(call: Call, vm: Vm, storage: Storage) -> str:
    """A name that is free: the time is to the second."""
    extension = _EXTENSIONS.get(str(call.params.get("compress", "0")), "")
    moment = call.emulator.state.clock.seconds()
    while True:
        when = time.strftime("%Y_%m_%d-%H_%M_%S", time.gmtime(moment))
        kind = "vma" if vm.type == "qemu" else "tar"
        volid = f"{storage.name}:backup/vzdump-{vm.type}-{vm.vmid}-{when}.{kind}{extension}"
        if volid not in storage.volumes:
            return volid
        moment += 1


def _percentages(total: int) -> Callable[[float], str]:
    return lambda part: f"INFO: {int(part * 100):3}% ({human(int(total * part))} of {human(total)}) in 1s"


def _notes(call: Call, vm: Vm) -> str | None:
    template = call.params.get("notes-template")
    if not template:
        return None
    values = {"guestname": vm.name, "vmid": str(vm.vmid), "node": vm.node, "cluster": "lab"}
    text = re.sub(r"\{\{(\w+)\}\}", lambda match: values.get(match[1], match[0]), template)
    return text.replace("\\n", "\n").replace("\\\\", "\\")


def _prune(call: Call, task: Task, vm: Vm, storage: Storage) -> None:
    """Keep as many as the storage says (`keep-last=N`); without that, all."""
    kept = re.search(r"keep-last=(\d+)", str(call.params.get("prune-backups") or storage.prune or ""))
    if not kept:
        return
    mine = sorted(volid for volid in backups_of(storage, vm.vmid) if not storage.volumes[volid].protected)
    for volid in mine[: -int(kept[1]) or None]:
        task.write(f"INFO: removing backup '{volid}'")
        forget(call, volid)


def backups_of(storage: Storage, vmid: int) -> list[str]:
    return [
        volid
        for volid, volume in list(storage.volumes.items())
        if volume.content == "backup" and parse_volid(volid).vmid == vmid
    ]


def forget(call: Call, volid: str) -> None:
    """Remove a backup and what it holds."""
    volume = call.emulator.volumes.get(volid)
    for name in (volume.archive or {}).get("disks", {}):
        call.emulator.backend.delete_volume(content_of(volid, name))
    del call.emulator.volumes.storage(parse_volid(volid).storage).volumes[volid]


@route("GET", "/nodes/{node}/vzdump/extractconfig")
def extract_config(call: Call) -> Any:
    require_readable(call, call.params["volume"])
    volume = call.emulator.volumes.get(call.params["volume"])
    config = (volume.archive or {}).get("config", {})
    return "".join(f"{key}: {config[key]}\n" for key in sorted(config))
