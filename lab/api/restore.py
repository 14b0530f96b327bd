"""Restoring virtual machines from backups.

The guest exists as soon as the request is answered, with only the lock `create`; a failed restore removes the lock and
leaves the rest. Over an existing guest, the disks in the archive are deleted before the new ones are created; disks
that the archive lacks are kept and become `unusedN` at the end.
"""

import re
import time
import uuid
from typing import Any

from lab.api import archives, drives, options
from lab.api.create import join_pool, require_allocate
from lab.api.errors import ApiError, ParameterError, PermissionDenied
from lab.api.power import start_vm
from lab.api.routes import Call
from lab.api.state import Config, Vm
from lab.api.tasks import Killed, Task
from lab.api.volumes import CLOUDINIT_SIZE, parse_volid

_NOT_VALUES = frozenset(
    ("node", "vmid", "archive", "storage", "force", "unique", "start", "pool", "bwlimit", "live-restore", "ha-managed")
)
_DEVICE = re.compile(r"(net|hostpci|usb)\d+")
_READERS = {"zst": "zstd -q -d -c", "gz": "zcat", "lzo": "lzop -d -c"}
_EMPTY: Config = {"memory": "128"}


def restore(call: Call, archive: str) -> str:
    """Start restoring the VM from the archive."""
    emulator, vmid = call.emulator, call.vmid
    require_rights(call)
    for name in call.params:
        if drives.is_drive(name):
            raise ParameterError({name: "option conflicts with option 'archive'"})
    holds = archives.content(call, archive)
    reserve(call, "qemu")
    restored: list[bool] = []

    def work(task: Task) -> None:
        vm = emulator.state.vms[vmid]
        if vm.config.get("protection"):
            raise ApiError(f"unable to restore VM {vmid} - - protection mode enabled")
        if vm.running:
            raise ApiError(f"unable to restore VM {vmid} - vm is running")
        with emulator.locks.config(vmid, 1):
            _Restore(call, task, archive, holds).run()
        restored.append(True)
        if call.params.get("start"):
            task.write("Execute autostart")
            _start(call)

    def failed(task: Task) -> None:
        vm = emulator.state.vms.get(vmid)
        if vm and vm.config.pop("lock", None) is None:
            task.write("no lock found trying to remove 'create'  lock")
        task.write(
            "error after data was restored, VM disks should be OK but config may require adaptions. "
            if restored
            else "error before or during data restore, some or all disks were not completely restored. "
            f"VM {vmid} state is NOT cleaned up."
        )

    return emulator.tasks.start("qmrestore", vmid, call.user, work, failed)


def require_rights(call: Call) -> None:
    """Require the right to allocate the guest; for an existing one the right to back it up is enough as well."""
    permissions, vmid = call.emulator.permissions, call.vmid
    if call.params.get("storage"):
        permissions.require(call.user, f"/storage/{call.params['storage']}", ["Datastore.AllocateSpace"])
    try:
        require_allocate(call, vmid, call.params.get("pool"))
    except PermissionDenied:
        present = vmid in call.emulator.state.vms
        owner = permissions.allowed(call.user, f"/vms/{vmid}", ["VM.Backup"])
        if not (call.params.get("force") and present and owner):
            raise


def reserve(call: Call, kind: str) -> None:
    """Take the VMID, or the existing guest that may be overwritten, with the lock `create`."""
    state, vmid, word = call.emulator.state, call.vmid, "VM" if kind == "qemu" else "CT"
    unable = f"unable to restore {word} {vmid} -"
    with call.emulator.locks.config(vmid, 5), call.emulator.mutex:
        present = state.vms.get(vmid)
        if present is not None and (not call.params.get("force") or present.type != kind):
            other = "VM" if present.type == "qemu" else "CT"
            raise ApiError(f"{unable} {other} {vmid} already exists on node '{present.node}'")
        if present is not None:
            lock = call.emulator.lock_of(present)
            if lock:
                raise ApiError(f"{unable} {word} is locked ({lock})")
        vm = state.vms.setdefault(vmid, Vm(vmid, kind, state.name_of(call.node), {}))
        vm.config["lock"] = "create"
    if present is None:
        call.emulator.statistics.see(vm)  # a restore takes long enough for the statistics daemon to sample the guest


def _start(call: Call) -> None:
    """Start the VM in a separate task; the restore has already succeeded."""

    def work(task: Task) -> None:
        with call.emulator.locks.config(call.vmid):
            start_vm(call, call.vmid, task)

    upid = call.emulator.tasks.start("qmstart", call.vmid, call.user, work)
    thread = call.emulator.tasks.by_upid[upid].thread
    if thread:
        thread.join(0.2)


class _Restore:
    """One restore, in the order of the real one."""

    def __init__(self, call: Call, task: Task, archive: str, holds: dict[str, Any]) -> None:
        self.call, self.task, self.archive, self.holds = call, task, archive, holds
        self.vmid, self.volumes, self.state = call.vmid, call.emulator.volumes, call.emulator.state
        self.config: Config = dict(holds.get("config", {}))
        self.made: dict[str, str] = {}

    def run(self) -> None:
        before = self.state.vms[self.vmid]
        self._require_use_of(self.config)
        self._header()
        planned = self._planned()
        if len(before.config) > 1:  # more than only the lock
            self._clear(before, planned)
        try:
            self._disks(planned)
        except Killed:
            raise
        except BaseException:
            for volid in self.made.values():
                self.volumes.remove(volid)
                self.task.write(f"temporary volume '{volid}' successfully removed")
            raise
        vm = Vm(self.vmid, "qemu", before.node, self._new_config())
        self.state.vms[self.vmid] = vm
        self._rescan(vm)
        pool = self.call.params.get("pool")
        if pool and self.vmid not in map(int, self.state.pools[pool].get("members", [])):
            join_pool(self.call, self.vmid, pool)
        if vm.is_template:
            self._to_template(vm)

    def _header(self) -> None:
        """Read the header; a damaged archive ends here, before any change."""
        path, pid = self.volumes.path(self.archive), self.task.parts["pid"].lstrip("0")
        reader = _READERS.get(self.archive.rpartition(".")[2])
        scratch = f"/var/tmp/vzdumptmp{int(pid, 16)}"
        source = f"vma extract -v -r {scratch}.fifo {'-' if reader else path} {scratch}"
        command = f"{reader} {path} | {source}" if reader else source
        self.task.write(f"restore vma archive: {command}")
        if "disks" not in self.holds:
            raise ApiError(f"command 'set -o pipefail && {command}' failed: exit code 1")
        text = archives.text_of(self.archive, self.holds)
        self.task.write(f"CFG: size: {len(text)} name: qemu-server.conf")
        for number, (name, disk) in enumerate(sorted(self.holds["disks"].items()), 1):
            self.task.write(f"DEV: dev_id={number} size: {disk['size']} devname: {archives.device(name)}")
        made = self.volumes.get(self.archive).ctime
        self.task.write(f"CTIME: {time.strftime('%a %b %e %H:%M:%S %Y', time.gmtime(made))}")

    def _planned(self) -> dict[str, dict[str, Any]]:
        """Return the volumes to create, by drive: those of the archive, and a new cloud-init drive."""
        chosen = self.call.params.get("storage")
        planned = {name: {**disk, "storage": chosen or disk["storage"]} for name, disk in self.holds["disks"].items()}
        for name, drive in drives.of(self.config):
            if drives.is_cloudinit(drive):
                form = drive["file"].rpartition(".")[2] if "." in drive["file"].rpartition("/")[2] else "raw"
                storage = chosen or parse_volid(drive["file"]).storage
                planned[name] = {"size": CLOUDINIT_SIZE, "format": form, "storage": storage, "cloudinit": True}
        for disk in planned.values():
            storage = self.volumes.storage(disk["storage"])
            if "images" not in storage.content.split(","):
                raise ApiError(f"Content type 'images' is not available on storage '{storage.name}'")
            self._require(f"/storage/{storage.name}", ["Datastore.AllocateSpace"])
        return planned

    def _require(self, path: str, privileges: list[str]) -> None:
        try:
            self.call.emulator.permissions.require(self.call.user, path, privileges)
        except PermissionDenied as error:
            raise ApiError(f"403 {error.message}") from error

    def _clear(self, before: Vm, planned: dict[str, Any]) -> None:
        """Empty the existing guest and delete the disks that the archive contains."""
        for name, drive in list(drives.of(before.config)):
            volid = drive["file"]
            if name in planned and ":" in volid and parse_volid(volid).vmid == self.vmid:
                self.volumes.remove(volid)
        for snapshot in before.snapshots.values():
            if "vmstate" in snapshot.config:
                self.volumes.remove(str(snapshot.config["vmstate"]))
        self.state.vms[self.vmid] = Vm(self.vmid, "qemu", before.node, dict(_EMPTY))

    def _disks(self, planned: dict[str, dict[str, Any]]) -> None:
        for name in sorted(planned):
            disk = planned[name]
            storage = self.volumes.storage(disk["storage"])
            new = f"vm-{self.vmid}-cloudinit" if disk.get("cloudinit") else None
            self.made[name] = self.volumes.allocate(
                storage, self.vmid, disk["size"], disk["format"], name=new, log=self.task.write
            )
            self.task.write(f"new volume ID is '{self.made[name]}'")
        total = 0
        held = sorted(name for name in planned if not planned[name].get("cloudinit"))
        for name in held:
            path = self.volumes.path(self.made[name])
            self.task.write(f"map '{archives.device(name)}' to '{path}' (write zeros = 0)")
        for name in held:
            volid, size = self.made[name], planned[name]["size"]
            self.call.emulator.backend.clone_volume(archives.content_of(self.archive, name), volid, size)
            self.volumes.get(volid).used = planned[name]["used"]
            total += size
        if self.holds.get("truncated"):
            raise ApiError("vma: restore failed - short vma extent (compressed data is truncated)")
        self.task.pace(lambda part: f"progress {int(part * 100)}% (read {int(part * total)} bytes, duration 0 sec)")
        self.task.linger()
        self.task.write(f"progress 100% (read {total} bytes, duration 1 sec)")
        self.task.write(f"total bytes read {total}, sparse bytes 0 (0%)")

    def _new_config(self) -> Config:
        """Return the archive's configuration with the new volumes; a disk without archived data becomes a line in the
        notes.
        """
        config, lines = dict(self.config), []
        for name, drive in list(drives.of(config)):
            if drive.get("backup") in ("0", "no", "off", "false"):
                lines.append(f"{name}: {config.pop(name)}")
            elif name in self.made:
                size = {} if drives.is_cloudinit(drive) else {"size": drives.to_text(self.holds["disks"][name]["size"])}
                kept = {key: value for key, value in drive.items() if key != "format"}
                config[name] = drives.write({**kept, "file": self.made[name], **size})
        for name in [name for name in config if options.is_unused(name) or name in ("lock", "parent")]:
            del config[name]
        notes = "\n".join([*([str(config["description"])] if config.get("description") else []), *lines])
        config |= {"description": notes} if notes else {}
        if self.call.params.get("unique"):
            for name in filter(options.is_network, list(config)):
                device = options.network(self.call, name, str(config[name]))
                config[name] = options.write_network({**device, "macaddr": options.new_mac()})
            config["smbios1"] = options.new_smbios()
        if str(config.get("vmgenid", "0")) != "0":
            config["vmgenid"] = str(uuid.uuid4())
        return config | {key: value for key, value in self.call.params.items() if key not in _NOT_VALUES}

    def _require_use_of(self, config: Config) -> None:
        """Require access to the bridges and mapped devices in the archive's configuration."""
        try:
            options.require_devices(self.call, {name: config[name] for name in config if _DEVICE.match(name)})
        except ApiError as error:
            raise ApiError(f"403 {error.message}" if error.status == 403 else error.message) from error

    def _rescan(self, vm: Vm) -> None:
        """Add volumes of the VM that its configuration does not name as `unusedN`."""
        self.task.write("rescan volumes...")
        named = {drive["file"] for _, drive in drives.of(vm.config)}
        for volid in sorted(self.volumes.of_vm(self.vmid)):
            if volid in named or "-state-" in volid:
                continue
            key = next(f"unused{n}" for n in range(256) if f"unused{n}" not in vm.config)
            vm.config[key] = volid
            self.task.write(f"VM {self.vmid} add unreferenced volume '{volid}' as '{key}' to config")

    def _to_template(self, vm: Vm) -> None:
        self.task.write("Convert to template.")
        for name, drive in list(drives.of(vm.config)):
            if not drives.is_cdrom(drive):
                vm.config[name] = drives.write({**drive, "file": self.volumes.to_base(drive["file"])})
