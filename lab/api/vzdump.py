"""Backups: a job is one task that handles guests in turn; only its log says which failed and why.

The log lines follow recorded jobs of virtual machines; for containers they follow PVE::VZDump::LXC.
"""

import re
import shlex
import time
import uuid
from collections.abc import Callable
from typing import Any

from lab.api import archives, drives, prune
from lab.api.agent import is_configured
from lab.api.archives import Candidate
from lab.api.errors import ApiError, ParameterError, PermissionDenied
from lab.api.formats import split_list
from lab.api.routes import Call, route
from lab.api.state import Storage, Vm, Volume
from lab.api.tasks import Killed, Task
from lab.api.volumes import human, parse_volid

_ROOT_ONLY = ("tmpdir", "dumpdir", "script", "job-id")
_EXTENSIONS = {"0": "", "1": ".lzo", "lzo": ".lzo", "gzip": ".gz", "zstd": ".zst"}
_SHRINKS = 2  # how much smaller an archive is than the guest's used bytes
_LOCK_MINUTES = 180
_MAX_PROTECTED = 5  # for callers who may not allocate on the storage
_SAFE = re.compile(r"[\w!%+,\-./:=@^]+")


@route("GET", "/nodes/{node}/vzdump/defaults")
def defaults(call: Call) -> Any:
    """Return a job's defaults: the built-in values and the retention of its storage."""
    name = call.params.get("storage", "local")
    privileges = ["Datastore.Audit", "Datastore.AllocateSpace"]
    call.emulator.permissions.require(call.user, f"/storage/{name}", privileges, any_of=True)
    storage = _backup_storage(call, name)
    node = call.emulator.state.name_of(call.node)
    audits = call.emulator.permissions.allowed(call.user, f"/nodes/{node}", ["Sys.Audit"])
    return {
        **{"storage": name, "mode": "snapshot", "compress": "0", "remove": 1, "prune-backups": "keep-all=1"},
        **{"bwlimit": 0, "lockwait": _LOCK_MINUTES, "stopwait": 10, "pigz": 0, "zstd": 1, "stdexcludes": 1, "stop": 0},
        **{
            "quiet": 0,
            "all": 0,
            "mailnotification": "always",
            "notification-mode": "auto",
            "pbs-change-detection-mode": "legacy",
        },
        **({"ionice": 7} if audits else {}),
        **({"dumpdir": f"{storage.path}/dump"} if audits and storage.path else {}),
        **({"prune-backups": storage.prune} if storage.prune else {}),
    }


def _backup_storage(call: Call, name: str) -> Storage:
    storage = call.emulator.volumes.storage(name)
    if "backup" not in storage.content.split(","):
        raise ApiError(f"can't use storage '{name}' for backups - wrong content type")
    return storage


@route("POST", "/nodes/{node}/vzdump")
def vzdump(call: Call) -> Any:
    _require_parameters(call)
    node, state = call.emulator.state.name_of(call.node), call.emulator.state
    chosen = _chosen(call)
    elsewhere = [vmid for vmid in chosen if vmid in state.vms and state.vms[vmid].node != node]
    vmids = sorted(set(chosen) - set(elsewhere))
    if not vmids and not call.params.get("all"):
        return "OK"  # nothing to do on this node, so without a task
    name = call.params.get("storage", "local")
    call.emulator.permissions.require(call.user, f"/storage/{name}", ["Datastore.AllocateSpace"])
    command, ident = _command(call, node), vmids[0] if len(vmids) == 1 else ""
    return call.emulator.tasks.start(
        "vzdump", ident, call.user, lambda task: _job(call, task, command, vmids, sorted(elsewhere))
    )


def _require_parameters(call: Call) -> None:
    params, permissions = call.params, call.emulator.permissions
    for name in _ROOT_ONLY:
        if name in params and not call.user.is_root:
            raise ParameterError({name: "Only root may set this option."})
    if not call.user.is_root:
        if {"bwlimit", "ionice", "performance"} & params.keys():
            permissions.require(call.user, "/", ["Sys.Modify"])
        if "prune-backups" in params:
            storage = params.get("storage", "local")
            permissions.require(call.user, f"/storage/{storage}", ["Datastore.Allocate"])
    for name in ("all", "exclude", "pool"):
        if params.get(name) and params.get("vmid"):
            raise ParameterError({name: "option conflicts with option 'vmid'"})
    _require_template(str(params.get("notes-template", "")))
    if not any(params.get(name) for name in ("vmid", "all", "pool", "exclude", "stop")):
        raise ParameterError({"vmid": "property is missing"})


def _require_template(template: str) -> None:
    """Allow only known escapes and variables."""
    if "\n" in template:
        raise ParameterError({"notes-template": "contains a line feed\n"})
    wrong = [
        f"escape sequence '\\{match[1]}' at char {match.start()}"
        for match in re.finditer(r"\\(.)", template)
        if match[1] not in "n\\"
    ]
    wrong += [
        f"variable '{match[1]}' at char {match.start() + 2}"
        for match in re.finditer(r"\{\{([^\s{}]+)\}\}", template)
        if match[1] not in ("cluster", "guestname", "node", "vmid")
    ]
    if wrong:
        raise ParameterError({"notes-template": f"found unknown: {', '.join(wrong)}\n"})


def _chosen(call: Call) -> list[int]:
    """Return the requested VMIDs on any node, including those without a guest."""
    params, state = call.params, call.emulator.state
    if params.get("pool"):
        call.emulator.permissions.require_pool(params["pool"])
        return [int(vmid) for vmid in state.pools[params["pool"]].get("members", [])]
    if params.get("vmid"):
        return [int(vmid) for vmid in split_list(str(params["vmid"]))]
    excluded = {int(vmid) for vmid in split_list(str(params.get("exclude", "")))}
    return [vmid for vmid in state.vms if vmid not in excluded]


def _command(call: Call, node: str) -> str:
    """Return the job as the command line that starts its log."""
    words = ["vzdump", *split_list(str(call.params.get("vmid", "")))]
    for name, value in {**call.params, "node": node}.items():
        if name != "vmid" and str(value) != "":
            text = str(value)
            words += [f"--{name}", text if _SAFE.fullmatch(text) else shlex.quote(text)]
    return " ".join(words)


def _job(call: Call, task: Task, command: str, vmids: list[int], elsewhere: list[int]) -> None:
    storage = _activated(call)
    minutes = float(call.params.get("lockwait", _LOCK_MINUTES))
    try:
        with call.emulator.locks.backup_job(call.node, minutes * 60, lambda line: task.write(f"INFO: {line}")):
            _guests(call, task, command, vmids, elsewhere, storage)
    except ApiError as error:
        if "vzdump.lock" not in error.message:
            raise
        task.write(f"ERROR: {error.message}")  # the worker ends without another message
        raise Killed from error


def _activated(call: Call) -> Storage:
    """Activate the job's storage before anything is logged."""
    name, problems = call.params.get("storage", "local"), []
    try:
        call.emulator.volumes.activated(name)
    except ApiError as error:
        problems.append(f"could not activate storage '{name}': {error.message}")
    try:
        storage = _backup_storage(call, name)
    except ApiError as error:
        problems.append(f"could not get storage information for '{name}': {error.message}")
    if problems:
        raise ApiError(" ".join(problems))
    return storage


def _guests(call: Call, task: Task, command: str, vmids: list[int], elsewhere: list[int], storage: Storage) -> None:
    task.write(f"INFO: starting new backup job: {command}")
    if elsewhere:
        task.write(f"INFO: skip external VMs: {', '.join(map(str, elsewhere))}")
    failed = 0
    for vmid in _allowed(call, vmids):
        try:
            _one(call, task, vmid, storage)
        except ApiError as error:
            failed += 1
            task.write(f"ERROR: Backup of VM {vmid} failed - {error.message}", f"INFO: Failed at {_now(call)}")
    task.write("INFO: Backup job finished with errors" if failed else "INFO: Backup job finished successfully")
    if failed:
        raise ApiError("job errors")


def _allowed(call: Call, vmids: list[int]) -> list[int]:
    """Return the guests that the caller may back up: with `all` others are skipped, without it they end the job."""
    allowed = []
    for vmid in vmids:
        try:
            if vmid in call.emulator.state.vms:
                call.emulator.permissions.require(call.user, f"/vms/{vmid}", ["VM.Backup"])
            allowed.append(vmid)
        except PermissionDenied as error:
            if not call.params.get("all"):
                raise ApiError(f"403 {error.message}") from error
    return allowed


def _now(call: Call) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(call.emulator.state.clock.seconds()))


def _one(call: Call, task: Task, vmid: int, storage: Storage) -> None:
    state, began = call.emulator.state, time.monotonic()
    vm = state.vms.get(vmid)
    if vm is None:
        raise ApiError(f"unable to find VM '{vmid}'")
    retention = _retention(call, storage)
    _require_room(call, vm, storage, retention)
    task.write(f"INFO: Starting Backup of VM {vmid} ({vm.type})", f"INFO: Backup started at {_now(call)}")
    task.write(f"INFO: status = {'running' if vm.running else 'stopped'}")
    with call.emulator.locks.config(vmid):
        lock = call.emulator.lock_of(vm)
        if lock:
            raise ApiError(f"{'VM' if vm.type == 'qemu' else 'CT'} is locked ({lock})")
        vm.config["lock"] = "backup"
    try:
        volid = _archive(call, task, vm, storage)
        _attributes(call, task, vm, storage, volid)
        if call.params.get("remove", 1) and retention:
            _prune(call, task, vm, storage, retention)
    finally:
        if not task.dies:
            vm.config.pop("lock", None)
    seconds = int(time.monotonic() - began)
    task.write(f"INFO: Finished Backup of VM {vmid} ({time.strftime('%H:%M:%S', time.gmtime(seconds))})")
    task.write(f"INFO: Backup finished at {_now(call)}")


def _retention(call: Call, storage: Storage) -> dict[str, int]:
    """Return how many to keep, from `keep-…`; empty: all."""
    return prune.retention(str(call.params.get("prune-backups") or storage.prune or ""))


def _require_room(call: Call, vm: Vm, storage: Storage, retention: dict[str, int]) -> None:
    """Fail when pruning is off and the retention limit is reached, or when protected backups reach their limit."""
    limit = sum(retention.values())
    mine = [storage.volumes[volid].protected for volid in archives.of_guest(storage, vm.vmid, vm.type)]
    if call.params.get("protected"):
        unlimited = call.emulator.permissions.allowed(call.user, f"/storage/{storage.name}", ["Datastore.Allocate"])
        if not unlimited and mine.count(True) >= _MAX_PROTECTED:
            raise ApiError(
                f"The number of protected backups per guest is limited to {_MAX_PROTECTED} on storage '{storage.name}'"
            )
    elif limit and not call.params.get("remove", 1) and mine.count(False) >= limit:
        raise ApiError(
            f"There is a max backup limit of {limit} enforced by the target storage or the vzdump parameters. "
            "Either increase the limit or delete old backups."
        )


def _archive(call: Call, task: Task, vm: Vm, storage: Storage) -> str:
    """Create the archive; nothing is left of it on failure."""
    emulator, volumes = call.emulator, call.emulator.volumes
    extension = _EXTENSIONS.get(str(call.params.get("compress", "0")), "")
    volid, moment = archives.name_for(vm, storage, extension, emulator.state.clock.seconds())
    candidates = list(archives.candidates(vm))
    mode = str(call.params.get("mode", "snapshot")) if vm.running else "stop"
    _say_what(task, vm, mode, candidates)
    disks = {each.name: each.volid for each in candidates if each.included}
    config = archives.kept(vm)
    task.write(f"INFO: creating vzdump archive '{volumes.path(volid)}'")
    total = sum(volumes.get(source).size for source in disks.values())
    size = max(1 << 20, sum(volumes.get(source).used for source in disks.values()) // _SHRINKS)
    for line in _before(vm, mode, disks):
        task.write(f"INFO: {line}")
        if line.startswith("starting kvm") and drives.cloudinit_of(vm.config):
            task.write("generating cloud-init ISO")  # logged by the start, not by the job
    copies: list[str] = []
    try:
        volumes.require_space(storage, volid, size)
        task.pace(_percentages(total))
        for name, source in disks.items():
            copy = archives.content_of(volid, name)
            emulator.backend.clone_volume(source, copy, volumes.get(source).size)
            copies.append(copy)
        task.linger()
    except BaseException:
        for copy in copies:
            emulator.backend.delete_volume(copy)
        raise
    task.write(*(f"INFO: {line}" for line in _after(vm, mode, disks, total)))
    volume = Volume("backup", volid.partition("-")[2].partition(".")[2], size, size, moment)
    volume.node = vm.node
    saved = {name: _contents(call, source) for name, source in disks.items()}
    volume.archive = {"type": vm.type, "config": config, "disks": saved}
    storage.volumes[volid] = volume
    task.write(f"INFO: archive file size: {_size(size)}")
    return volid


def _say_what(task: Task, vm: Vm, mode: str, candidates: list[Candidate]) -> None:
    """Log what the archive includes and excludes, after the mode unless that had to be tried first."""
    how = [f"INFO: backup mode: {mode}", "INFO: ionice priority: 7"]
    name = vm.config.get("name" if vm.type == "qemu" else "hostname")
    what = [f"INFO: {'VM' if vm.type == 'qemu' else 'CT'} Name: {name}"] if name else []
    for each in candidates:
        if vm.type == "lxc":
            entry = f"including mount point {each.name} ('{each.where}') in backup"
            kind = "volume" if ":" in each.volid else "bind"
            left_out = f"excluding {kind} mount point {each.name} ('{each.where}') from backup ({each.reason})"
            what.append(f"INFO: {entry if each.included else left_out}")
        elif each.included:
            what.append(f"INFO: include disk '{each.name}' '{each.volid}' {each.size}".rstrip())
        else:
            what.append(f"INFO: exclude disk '{each.name}' '{each.volid}' ({each.reason})")
    task.write(*(what + how if mode == "snapshot" else how + what))
    if vm.type == "lxc":
        return
    if vm.running and mode == "stop":
        task.write("INFO: stopping virtual guest")
    unused = [vm.config[key] for key in sorted(vm.config) if re.fullmatch(r"unused\d+", key)]
    task.write(*(f"INFO: skip unused drive '{volid}' (not included into backup)" for volid in unused))
    if vm.snapshots:
        task.write("INFO: snapshots found (not included into backup)")
    if vm.pending or vm.pending_delete:
        task.write("INFO: pending configuration changes found (not included into backup)")


def _before(vm: Vm, mode: str, disks: dict[str, str]) -> list[str]:
    """Log the steps up to the data transfer. A stopped VM is started, paused, to read its disks."""
    if vm.type == "lxc":
        return ["create storage snapshot 'vzdump'"] if mode == "snapshot" else []
    if not disks:
        return ["backup contains no disks", "starting diskless backup"]
    frozen = vm.running and mode == "snapshot" and is_configured(vm.config)
    off = not vm.running or mode == "stop"
    lines = ["starting kvm to execute backup task"] if off else []
    lines += ["issuing guest-agent 'fs-freeze' command"] if frozen else []
    lines += ["starting backup via QMP command"]
    lines += ["issuing guest-agent 'fs-thaw' command"] if frozen else []
    lines += [f"started backup task '{uuid.uuid4()}'"]
    return lines + (["resuming VM again"] if vm.running and not vm.paused else [])


def _after(vm: Vm, mode: str, disks: dict[str, str], total: int) -> list[str]:
    if vm.type == "lxc":
        return [f"Total bytes written: {total} ({human(total)}, 1.0GiB/s)"]
    lines = [f"100% ({human(total)} of {human(total)}) in 1s, read: 1.0 GiB/s, write: 0 B/s"] if disks else []
    return lines + (["stopping kvm after backup task"] if disks and not vm.running else [])


def _attributes(call: Call, task: Task, vm: Vm, storage: Storage, volid: str) -> None:
    volume = storage.volumes[volid]
    template = str(call.params.get("notes-template", ""))
    if template:
        task.write("INFO: adding notes to backup")
        values = {"guestname": vm.name, "vmid": str(vm.vmid), "node": vm.node, "cluster": "standalone node"}
        text = re.sub(r"\\(.)", lambda match: "\n" if match[1] == "n" else match[1], template)
        volume.notes = re.sub(r"\{\{(\w+)\}\}", lambda match: values[match[1]], text)
    if call.params.get("protected"):
        task.write("INFO: marking backup as protected")
        volume.protected = True


def _prune(call: Call, task: Task, vm: Vm, storage: Storage, retention: dict[str, int]) -> None:
    policy = ", ".join(f"{name}={retention[name]}" for name in sorted(retention))
    task.write(f"INFO: prune older backups with retention: {policy}")
    gone = [row for row in prune.marks(storage, retention, vm.vmid, vm.type) if row["mark"] == "remove"]
    for row in gone:
        task.write(f"INFO: removing backup '{row['volid']}'")
        archives.forget(call, row["volid"])
    task.write(f"INFO: pruned {len(gone)} backup(s){' not covered by keep-retention policy' if gone else ''}")


def _contents(call: Call, source: str) -> dict[str, Any]:
    volume = call.emulator.volumes.get(source)
    return {"size": volume.size, "used": volume.used, "format": volume.format, "storage": parse_volid(source).storage}


def _size(size: int) -> str:
    """Return the archive's size as the log prints it."""
    for unit in ("KB", "MB"):
        size //= 1024
        if size < 1024:
            return f"{size}{unit}"
    return f"{size / 1024:.2f}GB"


def _percentages(total: int) -> Callable[[float], str]:
    return lambda part: f"INFO: {int(part * 100):3}% ({human(int(total * part))} of {human(total)}) in 1s"


@route("GET", "/nodes/{node}/vzdump/extractconfig")
def extract_config(call: Call) -> Any:
    volid = call.params["volume"]
    return archives.text_of(volid, archives.content(call, volid))
