"""Changes of a VM's configuration: immediate, or pending where the running VM cannot apply them."""

import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from lab.api import drives, hotplug, options
from lab.api.crypt import sha256_crypt
from lab.api.errors import ApiError, ParameterError
from lab.api.state import Vm
from lab.api.volume_access import require_drive, require_readable, require_source
from lab.api.volumes import CLOUDINIT_SIZE, parse_volid

if TYPE_CHECKING:
    from lab.api.routes import Call

Log = Callable[[str], None]


def prepared(call: "Call", params: dict[str, Any], *, creating: bool = False) -> dict[str, Any]:
    """Return the values as they will be stored, drives excepted: MAC addresses, hashes and UUIDs are generated."""
    values = dict(params)
    version = call.emulator.state.version
    for option, value in params.items():
        if options.is_network(option):
            device = options.network(call, option, value)
            device.setdefault("macaddr", options.new_mac())
            device["macaddr"] = device["macaddr"].upper()
            values[option] = options.write_network(device)
    if "cipassword" in values:
        password = values["cipassword"]
        values["cipassword"] = password if password.startswith("$") else sha256_crypt(password)
    if "tags" in values and (version >= 9 or not creating):
        values["tags"] = options.normalised_tags(values["tags"])
    if values.get("vmgenid") == "1":
        values["vmgenid"] = str(uuid.uuid4())
    return values


def require_storages(call: "Call", vmid: int, params: dict[str, Any]) -> None:
    """Check drives before anything changes: storages exist and may be used, volumes are readable."""
    for option, value in params.items():
        if not drives.is_drive(option):
            continue
        drive = drives.parse(str(value))
        new = drives.NEW.fullmatch(drive["file"])
        if new:
            _require_importable(call, option, drive.get("import-from"))
            call.emulator.permissions.require(call.user, f"/storage/{new['storage']}", ["Datastore.AllocateSpace"])
            storage = call.emulator.volumes.storage(new["storage"])
            if "images" not in storage.content.split(","):
                raise ParameterError({"storage": f"storage '{storage.name}' does not support vm images"})
        elif drive["file"] == "cdrom" and drives.is_cdrom(drive):
            call.emulator.permissions.require(call.user, "/", ["Sys.Console"])
        elif drive["file"] != "none":
            require_readable(call, drive["file"], vmid)
        if "import-from" in drive:
            require_source(call, drive["import-from"], vmid)


def _require_importable(call: "Call", option: str, source: str | None) -> None:
    """Require content type `images` or `import` for a disk that is imported."""
    volume = call.emulator.volumes.find(source) if source else None
    if volume and volume.content not in ("images", "import"):
        why = f"{source} has wrong type '{volume.content}' - needs to be 'images' or 'import'"
        raise ParameterError({option: why})


def make_drive(call: "Call", vmid: int, option: str, value: str, log: Log) -> tuple[str, str | None]:
    """Create the drive's volume if it requests a new one. Returns the drive's text and the volid created."""
    volumes, drive = call.emulator.volumes, drives.parse(value)
    new = drives.NEW.fullmatch(drive["file"])
    if not new:
        if ":" in drive["file"]:
            volume = volumes.get(drive["file"])
            if not drives.is_cdrom(drive):  # the volume's size, whatever size was given
                drive["size"] = drives.to_text(volume.size)
        drive.pop("format", None)
        return drives.write(drive), None
    storage, form, source = volumes.storage(new["storage"]), drive.pop("format", None), drive.pop("import-from", None)
    if new["cloudinit"]:
        form = form or ("qcow2" if storage.on_files else "raw")
        volid = volumes.allocate(storage, vmid, CLOUDINIT_SIZE, form, name=f"vm-{vmid}-cloudinit", log=log)
        drive.update(file=volid, media="cdrom")
    elif source:
        log(f"create full clone of drive ({source})")
        volid = volumes.copy(source, storage, vmid, form, log)
        drive.update(file=volid, size=drives.to_text(volumes.get(volid).size))
    else:
        size = int(float(new["size"]) * (1 << 30))
        volid = volumes.allocate(storage, vmid, size, form, log=log)
        drive.update(file=volid, size=drives.to_text(size))
    text = drives.write(drive)
    log(f"{option}: successfully created disk '{text}'")
    return text, volid


class Change:
    """One change of one VM's configuration, made while its lock is held."""

    def __init__(self, call: "Call", vm: Vm, log: Log) -> None:
        self.call, self.vm, self.log = call, vm, log
        self.errors: dict[str, str] = {}

    def reverted(self, names: list[str]) -> tuple[dict[str, Any], list[str]]:
        """Translate `revert`: values in force are set again, options that are only pending are deleted."""
        values = {name: self.vm.config[name] for name in names if name in self.vm.config}
        return values, [name for name in names if name not in values and name in self.vm.pending]

    def delete(self, names: list[str], *, force: bool = False) -> None:
        """Delete options; where the running VM needs one, at its next start.

        A disk stays as `unusedN`, even one that is only pending, unless `force` removes it.
        """
        for name in names:
            waiting = self.vm.pending.get(name)
            value = self.vm.config.get(name, waiting)
            drive = drives.parse(str(value)) if drives.is_drive(name) and value is not None else None
            if self.vm.config.get("protection") and (options.is_unused(name) or (drive and not drives.is_cdrom(drive))):
                raise ApiError(f"can't remove drive '{name}' - protection mode enabled")
            if name in self.vm.pending or name in self.vm.config:
                self._require(name, str(self.vm.pending.get(name, self.vm.config.get(name))))
            self.vm.pending.pop(name, None)
            if drive and waiting is not None:
                self._detach(drives.parse(str(waiting)))
            if name not in self.vm.config:
                continue
            if waiting is None:
                self._leave_boot_order(name)
            if self.vm.running and not self._can_do_without(name, None):
                self.vm.pending_delete.add(name)
                if force:
                    self.vm.pending_force.add(name)
            else:
                self._drop(name, force=force)
        self._forget_used()

    def set(self, values: dict[str, Any]) -> None:
        """Set options. Raises ParameterError at the end for those that the running VM refused, which stay pending.

        All options become pending first: if a disk cannot be created, the earlier ones stay pending.
        """
        for name in sorted(values):
            value, waiting = values[name], self.vm.pending.get(name)
            if drives.is_drive(name):
                for text in {str(value), str(self.vm.desired.get(name, value))}:
                    self._require(name, text)
                if value != self.vm.config.get(name):
                    value = self._drive(name, value)
                if waiting not in (None, value):
                    self._detach(drives.parse(str(waiting)))
            self.vm.pending[name] = value
            self.vm.pending_delete.discard(name)
            self.vm.pending_force.discard(name)
        for name in sorted(values):
            value = self.vm.pending[name]
            if self.vm.config.get(name) == value:
                del self.vm.pending[name]
            elif not self.vm.running or self._can_do_without(name, value):
                del self.vm.pending[name]
                self._apply(name, value)
        if not self.vm.running:  # changes pending since the VM was switched off
            self.apply_pending()
        self._forget_used()
        if self.errors:
            raise ParameterError(self.errors)

    def _require(self, name: str, drive: str) -> None:
        if drives.is_drive(name):
            require_drive(self.call, self.vm.vmid, drives.parse(drive))
        elif options.is_unused(name) and not self.call.user.is_root:
            self.call.emulator.permissions.require(self.call.user, f"/vms/{self.vm.vmid}", ["VM.Config.Disk"])

    def apply_pending(self) -> None:
        """Apply pending changes before a start."""
        for name in sorted(self.vm.pending_delete):
            if name in self.vm.config:
                self._drop(name, force=name in self.vm.pending_force)
        self.vm.pending_delete.clear()
        self.vm.pending_force.clear()
        for name, value in sorted(self.vm.pending.items()):
            self._apply(name, value)
        self.vm.pending.clear()
        self._forget_used()

    def _drive(self, name: str, value: str) -> str:
        text, volid = make_drive(self.call, self.vm.vmid, name, value, self.log)
        if volid and self.vm.is_template and "cloudinit" not in volid:
            text = text.replace(volid, self.call.emulator.volumes.to_base(volid), 1)
        return text

    def _can_do_without(self, name: str, value: Any) -> bool:
        """Return whether the running VM applies this value now (None: the option is removed). Raises the hotplug error
        if that fails.
        """
        if not hotplug.at_once(self.call, self.vm, name, value):
            return False
        failure = self.call.emulator.faults.hotplug_failure(name) or hotplug.failure(self.call, self.vm, name, value)
        if failure:
            self.errors[name] = f"hotplug problem - {failure}\n"
        return not failure

    def _leave_boot_order(self, name: str) -> None:
        """Remove a device from the boot order, which may become empty."""
        order = drives.boot_order(self.vm.pending.get("boot", self.vm.config.get("boot")))
        if name in order:
            left = drives.boot_text(device for device in order if device != name)
            (self.vm.pending if self.vm.running else self.vm.config)["boot"] = left

    def _apply(self, name: str, value: Any) -> None:
        before = self.vm.config.get(name)
        if drives.is_drive(name) and before is not None and before != value:
            old, new = drives.parse(str(before)), drives.parse(str(value))
            if old["file"] != new["file"]:
                self._detach(old)
        self.vm.config[name] = value
        self._remember(name, before)

    def _drop(self, name: str, *, force: bool = False) -> None:
        value = self.vm.config.pop(name)
        if options.is_unused(name) or (drives.is_drive(name) and force):
            drive = drives.parse(str(value))
            try:
                if not drives.is_cdrom(drive) or drives.is_cloudinit(drive):
                    self.call.emulator.volumes.remove(drive["file"])
            except ApiError:
                self.vm.config[name] = value
                raise
        elif drives.is_drive(name):
            self._detach(drives.parse(str(value)))
        self._remember(name, value)

    def _detach(self, drive: drives.Drive) -> None:
        """Keep an unused disk as `unusedN`; delete a cloud-init drive."""
        if drives.is_cloudinit(drive):
            self.call.emulator.volumes.remove(drive["file"])
        elif not drives.is_cdrom(drive) and ":" in drive["file"] and parse_volid(drive["file"]).vmid == self.vm.vmid:
            drives.add_unused(self.vm.config, drive["file"])

    def _forget_used(self) -> None:
        """Remove the volumes that a drive uses, or will use, from the unused disks."""
        used = {
            drives.parse(str(value))["file"]
            for config in (self.vm.config, self.vm.pending)
            for name, value in config.items()
            if drives.is_drive(name)
        }
        for name in [name for name in self.vm.config if options.is_unused(name)]:
            if self.vm.config[name] in used:
                del self.vm.config[name]

    def _remember(self, name: str, before: Any) -> None:
        """Remember what the cloud-init drive of a running VM still contains."""
        if not self.vm.running or not drives.cloudinit_of(self.vm.config):
            return
        if options.is_cloudinit(name) or options.is_network(name):
            self.vm.on_drive.setdefault(name, before)
            if self.vm.on_drive[name] == self.vm.config.get(name):
                del self.vm.on_drive[name]
