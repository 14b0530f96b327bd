"""Restoring containers from backups. Not recorded: this follows PVE::API2::LXC and PVE::LXC::Create.

All volumes in the archive's configuration are created on one storage; then all volumes that an existing container's
configuration names are removed, pending and unused ones included. Snapshots are deleted with the configuration; volumes
that only they name, and other volumes under the container's name, stay without a reference. The archive's unused
volumes are not restored. A mount point that the archive does not contain (no `backup=1`) comes back empty. A restore
that fails after that leaves no container.
"""

import re
from typing import Any

from lab.api import archives, drives, options
from lab.api.containers import set_power
from lab.api.create import join_pool
from lab.api.destroy import owned
from lab.api.errors import ApiError, ParameterError
from lab.api.restore import require_rights, reserve
from lab.api.routes import Call
from lab.api.state import Config, Vm
from lab.api.tasks import Task

_VOLUME = re.compile(r"rootfs|mp\d+")
_NOT_VALUES = frozenset(
    ("node", "vmid", "ostemplate", "restore", "storage", "force", "unique", "start", "pool", "bwlimit", "password")
)


def restore(call: Call, archive: str) -> str:
    """Start restoring the container from the archive."""
    emulator, state, vmid = call.emulator, call.emulator.state, call.vmid
    present = state.vms.get(vmid)
    if present is not None and present.type == "lxc" and call.params.get("force"):
        if present.running:
            raise ApiError("can't overwrite running container")
        if present.config.get("protection"):
            raise ApiError(f"unable to restore CT {vmid} - protection mode enabled")
    elif present is not None:
        word = "VM" if present.type == "qemu" else "CT"
        raise ApiError(f"{word} {vmid} already exists on node '{present.node}'")
    require_rights(call)
    holds = archives.content(call, archive)
    storage = emulator.volumes.storage(call.params.get("storage", "local"))
    if "rootdir" not in storage.content.split(","):
        raise ParameterError({"storage": f"storage '{storage.name}' does not support container directories"})
    emulator.permissions.require(call.user, f"/storage/{storage.name}", ["Datastore.AllocateSpace"])
    reserve(call, "lxc")
    work = _Restore(call, archive, holds, storage.name, existed=present is not None)
    return emulator.tasks.start("vzrestore", vmid, call.user, work.run, work.failed)


class _Restore:
    def __init__(self, call: Call, archive: str, holds: dict[str, Any], storage: str, *, existed: bool) -> None:
        self.call, self.archive, self.holds, self.storage = call, archive, holds, storage
        self.volumes, self.state, self.vmid = call.emulator.volumes, call.emulator.state, call.vmid
        self.destroys = not existed
        self.made: list[str] = []

    def run(self, task: Task) -> None:
        try:
            with self.call.emulator.locks.config(self.vmid):
                self._restore(task)
        except ApiError as error:
            raise ApiError(f"unable to restore CT {self.vmid} - {error.message}") from error
        if self.call.params.get("start"):
            set_power(self.call, True)

    def failed(self, task: Task) -> None:
        """Delete a container that was changed; unlock one that was not."""
        for volid in self.made:
            self.volumes.remove(volid)
        if self.destroys:
            self.state.vms.pop(self.vmid, None)
        else:
            self.state.vms[self.vmid].config.pop("lock", None)

    def _restore(self, task: Task) -> None:
        old = self.state.vms[self.vmid]
        task.write(f"recovering backed-up configuration from '{self.archive}'")
        if "disks" not in self.holds:
            raise ApiError("command 'tar tpO' failed: archive contains no configuration file")
        config: Config = {key: value for key, value in self.holds["config"].items() if not options.is_unused(key)}
        self._require_volumes(config)
        self.destroys = True
        for name in sorted(filter(_VOLUME.fullmatch, config)):
            config[name] = self._made(config[name], task)
        for volid in owned(old):
            if volid not in self.made:
                self.volumes.remove(volid)
        task.write(f"restoring '{self.archive}' now..")
        task.write(f"extracting archive '{self.volumes.path(self.archive)}'")
        self._extract(config, task)
        task.write("merging backed-up and given configuration..")
        config |= {key: value for key, value in self.call.params.items() if key not in _NOT_VALUES}
        if self.call.params.get("unique"):
            for name in filter(options.is_network, list(config)):
                config[name] = re.sub(r"hwaddr=[^,]+", f"hwaddr={options.new_mac()}", str(config[name]))
        self.state.vms[self.vmid] = Vm(self.vmid, "lxc", old.node, config)
        pool = self.call.params.get("pool")
        if pool and self.vmid not in map(int, self.state.pools[pool].get("members", [])):
            join_pool(self.call, self.vmid, pool)

    def _require_volumes(self, config: Config) -> None:
        """Allow directories and devices of the node for root only, and require a size for each volume."""
        for name in sorted(filter(_VOLUME.fullmatch, config)):
            drive = drives.parse(str(config[name]))
            if drive["file"].startswith("/"):
                kind = "device" if drive["file"].startswith("/dev/") else "bind"
                if name == "rootfs":
                    raise ApiError(f"restoring rootfs to {kind} mount is only possible by specifying -rootfs manually!")
                if not self.call.user.is_root:
                    raise ApiError(f"restoring '{name}' to {kind} mount is only possible for root")
            elif "size" not in drive:
                raise ApiError(f"unable to detect disk size - please specify {name} (size)")

    def _made(self, value: str, task: Task) -> str:
        """Create a new, empty volume of the configured size; keep a bind mount as it is."""
        drive = drives.parse(str(value))
        if ":" not in drive["file"]:
            return value
        storage = self.volumes.storage(self.storage)
        volid = self.volumes.allocate(storage, self.vmid, drives.to_bytes(drive["size"]), "raw", log=task.write)
        storage.volumes[volid].content = "rootdir"
        self.made.append(volid)
        return drives.write({**drive, "file": volid})

    def _extract(self, config: Config, task: Task) -> None:
        for name, disk in self.holds["disks"].items():
            volid = drives.parse(str(config[name]))["file"]
            self.call.emulator.backend.clone_volume(archives.content_of(self.archive, name), volid, disk["size"])
            self.volumes.get(volid).used = disk["used"]
        if self.holds.get("truncated"):
            raise ApiError("command 'tar xpf -' failed: exit code 2")
        task.pace(lambda part: f"Total bytes read: {int(part * 100)}%")
        task.linger()
