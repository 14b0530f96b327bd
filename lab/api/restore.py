"""Guests out of backups. No recording is behind any of this: the schema, PVE::QemuServer and PVE::LXC::Create are."""

import uuid
from typing import Any

from lab.api import drives, options
from lab.api.archives import content_of
from lab.api.create import join_pool, require_allocate
from lab.api.errors import ApiError, PermissionDenied
from lab.api.power import start_vm
from lab.api.routes import Call
from lab.api.state import Config, Vm, Volume
from lab.api.tasks import Task
from lab.api.volumes import parse_volid

_NOT_VALUES = frozenset(
    ("node", "vmid", "archive", "ostemplate", "restore", "storage", "force", "unique", "start", "pool", "bwlimit")
)


def restore(call: Call, archive: str, kind: str) -> str:
    """Begin to make the guest out of the archive. `kind` is qemu or lxc."""
    emulator, vmid = call.emulator, call.vmid
    volume = emulator.volumes.find(archive)
    if volume is None or volume.content != "backup":
        raise ApiError(f"volume '{archive}' does not exist")
    holds = volume.archive or {}
    if holds.get("type", kind) != kind:
        raise ApiError(f"'{archive}' is no backup of a {'VM' if kind == 'qemu' else 'container'}")
    owner = parse_volid(archive).vmid
    word = "VM" if kind == "qemu" else "CT"

    def checked() -> None:
        present = emulator.state.vms.get(vmid)
        if present is None:
            return
        if present.type != kind:
            raise ApiError(f"unable to restore {word} {vmid} - it is a guest of another kind")
        if not call.params.get("force"):
            raise ApiError(f"unable to restore {word} {vmid} - {word} {vmid} already exists on node '{present.node}'")
        if present.config.get("protection"):
            raise ApiError(f"unable to restore {word} {vmid} - protection mode enabled")
        emulator.require_unlocked(present)
        if present.running:
            raise ApiError(f"unable to restore vm {vmid} - vm is running")

    _require_rights(call, owner, vmid)
    checked()

    def work(task: Task) -> None:
        with emulator.locks.config(vmid, 1):
            checked()
            task.write(f"restore {kind} archive: {emulator.volumes.path(archive)}")
            _fill(call, task, archive, holds, kind)
            join_pool(call, vmid, call.params.get("pool"))
        if call.params.get("start") and kind == "qemu":
            with emulator.locks.config(vmid):
                start_vm(call, vmid, task)

    return emulator.tasks.start("qmrestore" if kind == "qemu" else "vzrestore", vmid, call.user, work)


def _require_rights(call: Call, owner: int | None, vmid: int) -> None:
    """Who may allocate the guest may restore it; over one that is there also who may back it up."""
    allowed = call.emulator.permissions.allowed
    if call.params.get("pool"):
        require_allocate(call, vmid, call.params["pool"])
    elif not allowed(call.user, f"/vms/{vmid}", ["VM.Allocate"]) and not (
        call.params.get("force") and owner == vmid and allowed(call.user, f"/vms/{vmid}", ["VM.Backup"])
    ):
        raise PermissionDenied
    if call.params.get("storage"):
        call.emulator.permissions.require(call.user, f"/storage/{call.params['storage']}", ["Datastore.AllocateSpace"])


def _fill(call: Call, task: Task, archive: str, holds: dict[str, Any], kind: str) -> None:
    emulator, vmid = call.emulator, call.vmid
    volumes, state = emulator.volumes, emulator.state
    old = state.vms.get(vmid)
    config: Config = dict(holds.get("config", {}))
    made: list[str] = []
    try:
        for name, about in sorted(holds.get("disks", {}).items()):
            storage = volumes.storage(call.params.get("storage") or about["storage"])
            volid = volumes.allocate(storage, vmid, about["size"], about["format"], log=task.write)
            made.append(volid)
            emulator.backend.clone_volume(content_of(archive, name), volid, about["size"])
            storage.volumes[volid].used = about["used"]
            if kind == "lxc":
                storage.volumes[volid].content = "rootdir"
            drive = drives.parse(str(config[name]))
            config[name] = drives.write({**drive, "file": volid, "size": drives.to_text(about["size"])})
        task.pace(lambda part: f"progress {int(part * 100)}% (read {int(part * 100)} %)")
        task.linger()
    except ApiError:
        for volid in made:
            volumes.remove(volid)
        raise
    _forget_disks(call, old, made)
    for name, drive in list(drives.of(config)):
        if drives.is_cloudinit(drive):
            storage = volumes.storage(call.params.get("storage") or parse_volid(drive["file"]).storage)
            volid = f"{storage.name}:vm-{vmid}-cloudinit"
            storage.volumes.setdefault(volid, Volume("images", "raw", 4 << 20, 0, state.clock.seconds()))
            config[name] = drives.write({**drive, "file": volid})
    config |= {key: value for key, value in call.params.items() if key not in _NOT_VALUES}
    if call.params.get("unique"):
        for name in filter(options.is_network, list(config)):
            device = options.network(call, name, str(config[name]))
            config[name] = options.write_network({**device, "macaddr": options.new_mac()})
        config["smbios1"] = options.new_smbios()
    if "vmgenid" in config:
        config["vmgenid"] = str(uuid.uuid4())
    state.vms[vmid] = Vm(vmid, kind, state.name_of(call.node), config)


def _forget_disks(call: Call, old: Vm | None, made: list[str]) -> None:
    """The disks of the guest that is replaced go."""
    if old is None:
        return
    for volid in call.emulator.volumes.of_vm(old.vmid):
        if volid not in made and "cloudinit" not in volid:
            call.emulator.volumes.remove(volid)
