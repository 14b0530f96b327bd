"""Cloning: full copies, and linked clones of templates."""

import uuid
from collections.abc import Callable
from typing import Any

from lab.api import drives, options
from lab.api.create import join_pool, require_allocate
from lab.api.errors import ApiError
from lab.api.locks import CLONE_SECONDS
from lab.api.routes import Call, route
from lab.api.state import Config, Vm
from lab.api.tasks import Task
from lab.api.volumes import CLOUDINIT_SIZE, parse_volid
from lab.backend import BackendError

_NOT_COPIED = {"lock", "template", "digest", "parent", "snaptime", "snapstate"}


@route("POST", "/nodes/{node}/qemu/{vmid}/clone")
def clone(call: Call) -> Any:
    plan = Plan(call)
    plan.check()
    return call.emulator.tasks.start("qmclone", call.vmid, call.user, plan.work)


class Plan:
    """One clone: checked before the answer, and again by the worker."""

    def __init__(self, call: Call) -> None:
        self.call, self.params = call, call.params
        self.newid = int(call.params["newid"])

    def check(self) -> tuple[Vm, Config, bool]:
        """Check the source; return its configuration and whether disks are copied in full."""
        call, params = self.call, self.params
        if "pool" in params:
            require_allocate(call, self.newid, params["pool"])
        if "storage" in params:
            call.emulator.volumes.storage(params["storage"])
        if params.get("target", call.node) not in call.emulator.state.nodes:
            raise ApiError(f"no such cluster node '{params['target']}'")
        if call.emulator.faults.takes(self.newid):
            stranger = {"name": "stranger", "description": "somebody was faster"}
            call.emulator.state.vms[self.newid] = Vm(self.newid, "qemu", self.target, stranger)
        vm = call.emulator.state.find_vm(call.vmid)
        call.emulator.require_unlocked(vm)
        config = self._source(vm)
        full = bool(params.get("full", not vm.is_template))
        for name in ("storage", "format"):
            if name in params and not full:
                raise ApiError(f"parameter '{name}' not allowed for linked clones")
        self._require_unused()
        for name, drive in self._disks(config):
            if not full and not parse_volid(drive["file"]).is_base:
                raise ApiError(f"Linked clone feature is not supported for '{drive['file']}' ({name})")
        self._require_rights(config)
        self._require_reach(config)
        return vm, config, full

    @property
    def target(self) -> str:
        """Return the node that gets the copy."""
        state = self.call.emulator.state
        return state.name_of(self.params.get("target") or self.call.node)

    def _require_reach(self, config: Config) -> None:
        """Require that another target node can reach every copied volume."""
        if self.target == self.call.emulator.state.name_of(self.call.node):
            return
        volumes = self.call.emulator.volumes
        if "storage" in self.params and not volumes.storage(self.params["storage"]).shared:
            raise ApiError(f"can't clone to non-shared storage '{self.params['storage']}'")
        for _, drive in self._disks(config):
            if not volumes.storage(parse_volid(drive["file"]).storage).shared:
                raise ApiError(f"Can't clone VM to node '{self.target}' (VM uses local storage)")

    def _source(self, vm: Vm) -> Config:
        name = self.params.get("snapname")
        if name is None:
            return vm.config
        if name not in vm.snapshots:
            raise ApiError(f"snapshot '{name}' does not exist")
        return vm.snapshots[name].config

    def _require_unused(self) -> None:
        if self.newid in self.call.emulator.state.vms:
            raise ApiError(f"unable to create VM {self.newid}: config file already exists")

    @staticmethod
    def _disks(config: Config) -> list[tuple[str, drives.Drive]]:
        return [(name, drive) for name, drive in drives.of(config) if not drives.is_cdrom(drive)]

    def _require_rights(self, config: Config) -> None:
        """Require space on each storage that gets a volume, and access to each bridge."""
        call = self.call
        for _, drive in drives.of(config):
            if ":" in drive["file"] and (not drives.is_cdrom(drive) or drives.is_cloudinit(drive)):
                storage = self.params.get("storage") or parse_volid(drive["file"]).storage
                call.emulator.permissions.require(call.user, f"/storage/{storage}", ["Datastore.AllocateSpace"])
        options.require_devices(call, {name: value for name, value in config.items() if options.is_network(name)})

    def work(self, task: Task) -> None:
        """Run the worker: it locks the target exclusively, and the source exclusively if it runs, otherwise shared."""
        call, locks = self.call, self.call.emulator.locks
        shared = not call.emulator.state.find_vm(call.vmid).running
        with call.emulator.mutex:
            self._require_unused()
            target = Vm(self.newid, "qemu", self.target, {"lock": "clone", "description": " qmclone temporary file"})
            call.emulator.state.vms[self.newid] = target
        made: list[str] = []
        try:
            with locks.config(call.vmid, CLONE_SECONDS, shared=shared), locks.config(self.newid, CLONE_SECONDS):
                if call.emulator.state.version >= 9:
                    task.write(f"creating a clone of VM {call.vmid} with ID {self.newid}")
                config = self._copied(call.emulator.state.find_vm(call.vmid), made, task)
                task.linger()
                target.config = config
                join_pool(call, self.newid, self.params.get("pool"))
        except (ApiError, BackendError):
            self._undo(made)
            raise

    def _undo(self, made: list[str]) -> None:
        for volid in made:
            self.call.emulator.volumes.remove(volid)
        self.call.emulator.state.vms.pop(self.newid, None)

    def _copied(self, source: Vm, made: list[str], task: Task) -> Config:
        """Return the new configuration; each new volume is appended to `made`."""
        full = bool(self.params.get("full", not source.is_template))
        old = self._source(source)
        config = {name: value for name, value in old.items() if name not in _NOT_COPIED and not options.is_unused(name)}
        config["name"] = self.params.get("name") or f"Copy-of-VM-{old.get('name') or source.vmid}"
        if self.params.get("description"):
            config["description"] = self.params["description"]
        config["smbios1"] = options.with_new_uuid(str(config.get("smbios1", "")))
        if "vmgenid" in config:
            config["vmgenid"] = str(uuid.uuid4())
        for name in filter(options.is_network, old):
            device = options.network(self.call, name, str(old[name]))
            config[name] = options.write_network({**device, "macaddr": options.new_mac()})
        for name, drive in drives.of(old):
            if drives.is_cdrom(drive) and not drives.is_cloudinit(drive):
                continue
            task.checkpoint()
            try:
                volid = self._drive(name, drive, full, task)
            except (ApiError, BackendError) as error:
                raise ApiError(f"clone failed: {error}") from error
            made.append(volid)
            size = self.call.emulator.volumes.get(volid).size
            config[name] = drives.write({**drive, "file": volid, "size": drives.to_text(size)})
        return config

    def _drive(self, name: str, drive: drives.Drive, full: bool, task: Task) -> str:
        log: Callable[[str], None] = task.write
        volumes, volid = self.call.emulator.volumes, drive["file"]
        cloudinit = drives.is_cloudinit(drive)
        log(f"create {'full' if full or cloudinit else 'linked'} clone of drive {name} ({volid})")
        if not full and not cloudinit:
            return volumes.link(volid, self.newid, log)
        storage = volumes.storage(self.params.get("storage") or parse_volid(volid).storage)
        form = self.params.get("format")
        if not cloudinit:
            return volumes.copy(volid, storage, self.newid, form, log, task)
        source = volumes.find(volid)
        form = form or (source.format if source else "qcow2" if storage.on_files else "raw")
        made = volumes.allocate(storage, self.newid, CLOUDINIT_SIZE, form, name=f"vm-{self.newid}-cloudinit", log=log)
        if self.call.emulator.state.version >= 9:
            log(f"allocated target volume '{made}'")
        return made
