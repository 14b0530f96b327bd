"""Changing a VM's configuration: at once, or pending where a running VM cannot take it over."""

import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from lab.api import drives, options
from lab.api.crypt import sha256_crypt
from lab.api.errors import ApiError, ParameterError
from lab.api.state import Vm
from lab.api.volume_access import require_drive, require_readable, require_source
from lab.api.volumes import CLOUDINIT_SIZE, parse_volid

if TYPE_CHECKING:
    from lab.api.routes import Call

Log = Callable[[str], None]


def prepared(call: "Call", params: dict[str, Any], *, creating: bool = False) -> dict[str, Any]:
    """The values as the configuration will have them, drives excepted: MACs, hashes and UUIDs made."""
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
    """The checks of drives that are made before anything is done: storages exist and may be used, volumes be read."""
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
    """Disks are imported from images and from content `import`."""
    volume = call.emulator.volumes.find(source) if source else None
    if volume and volume.content not in ("images", "import"):
        why = f"{source} has wrong type '{volume.content}' - needs to be 'images' or 'import'"
        raise ParameterError({option: why})


def make_drive(call: "Call", vmid: int, option: str, value: str, log: Log) -> tuple[str, str | None]:
    """The drive with its volume made, if it asks for a new one. Its text and the volid that was made."""
    volumes, drive = call.emulator.volumes, drives.parse(value)
    new = drives.NEW.fullmatch(drive["file"])
    if not new:
        if ":" in drive["file"]:
            volume = volumes.get(drive["file"])
            if not drives.is_cdrom(drive):
                drive.setdefault("size", drives.to_text(volume.size))
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

    def revert(self, names: list[str]) -> None:
        for name in names:
            self.vm.pending.pop(name, None)
            self.vm.pending_delete.discard(name)

    def delete(self, names: list[str]) -> None:
        """Delete options; where the VM runs and cannot do without, at its next start."""
        for name in names:
            drive = (
                drives.parse(str(self.vm.config[name])) if drives.is_drive(name) and name in self.vm.config else None
            )
            if self.vm.config.get("protection") and (options.is_unused(name) or (drive and not drives.is_cdrom(drive))):
                raise ApiError(f"can't remove drive '{name}' - protection mode enabled")
            if name in self.vm.pending or name in self.vm.config:
                self._require(name, str(self.vm.pending.get(name, self.vm.config.get(name))))
            self.vm.pending.pop(name, None)
            if name not in self.vm.config:
                continue
            if self.vm.running and not self._can_do_without(name):
                self.vm.pending_delete.add(name)
            else:
                self._drop(name)

    def set(self, values: dict[str, Any]) -> None:
        """Set options; ParameterError in the end for what a running VM refused (it stays pending)."""
        for name in sorted(values):
            value = values[name]
            if drives.is_drive(name):
                for text in {str(value), str(self.vm.desired.get(name, value))}:
                    self._require(name, text)
                value = self._drive(name, value)
            self.vm.pending_delete.discard(name)
            if not self.vm.running:
                self._apply(name, value)
                continue
            self.vm.pending[name] = value
            if self.vm.config.get(name) == value:
                del self.vm.pending[name]
            elif self._takes_over(name, value):
                del self.vm.pending[name]
                self._apply(name, value)
        if self.errors:
            raise ParameterError(self.errors)

    def _require(self, name: str, drive: str) -> None:
        if drives.is_drive(name):
            require_drive(self.call, self.vm.vmid, drives.parse(drive))
        elif options.is_unused(name) and not self.call.user.is_root:
            self.call.emulator.permissions.require(self.call.user, f"/vms/{self.vm.vmid}", ["VM.Config.Disk"])

    def apply_pending(self) -> None:
        """What waited: before a start."""
        for name in sorted(self.vm.pending_delete):
            if name in self.vm.config:
                self._drop(name)
        self.vm.pending_delete.clear()
        for name, value in sorted(self.vm.pending.items()):
            self._apply(name, value)
        self.vm.pending.clear()

    def _drive(self, name: str, value: str) -> str:
        text, volid = make_drive(self.call, self.vm.vmid, name, value, self.log)
        if volid and self.vm.is_template and "cloudinit" not in volid:
            text = text.replace(volid, self.call.emulator.volumes.to_base(volid), 1)
        return text

    def _hotplugs(self, feature: str) -> bool:
        chosen = str(self.vm.config.get("hotplug", "network,disk,usb"))
        return feature in ("network,disk,usb" if chosen == "1" else chosen).split(",")

    def _can_do_without(self, name: str) -> bool:
        if name in options.IMMEDIATE or options.is_cloudinit(name) or options.is_unused(name):
            return True
        if options.is_network(name):
            return self._hotplugs("network")
        return drives.is_drive(name) and name.startswith(("scsi", "virtio")) and self._hotplugs("disk")

    def _takes_over(self, name: str, value: Any) -> bool:
        """Can a running VM take the value over? A failing attempt is an error."""
        if options.is_network(name) and self._hotplugs("network"):
            bridge = options.network(self.call, name, value).get("bridge")
            if bridge and bridge not in self.call.emulator.state.nodes[self.vm.node].get("bridges", {bridge: {}}):
                folder = "/usr/libexec/qemu-server" if self.call.emulator.state.version >= 9 else "/var/lib/qemu-server"
                why = f"network script {folder}/pve-bridge-hotplug failed with status 512"
                self.errors[name] = f"hotplug problem - VM {self.vm.vmid} qmp command 'netdev_add' failed - {why}\n"
                return False
            return True
        return self._can_do_without(name)

    def _apply(self, name: str, value: Any) -> None:
        before = self.vm.config.get(name)
        if drives.is_drive(name) and before is not None and before != value:
            old, new = drives.parse(str(before)), drives.parse(str(value))
            if old["file"] != new["file"]:
                self._detach(old)
        self.vm.config[name] = value
        self._remember(name, before)

    def _drop(self, name: str) -> None:
        value = self.vm.config.pop(name)
        if drives.is_drive(name):
            self._detach(drives.parse(str(value)))
        elif options.is_unused(name):
            try:
                self.call.emulator.volumes.remove(str(value))
            except ApiError:
                self.vm.config[name] = value
                raise
        self._remember(name, value)

    def _detach(self, drive: drives.Drive) -> None:
        """A disk that is no longer used stays as `unusedN`; a cloud-init drive goes."""
        if drives.is_cloudinit(drive):
            self.call.emulator.volumes.remove(drive["file"])
        elif not drives.is_cdrom(drive) and ":" in drive["file"] and parse_volid(drive["file"]).vmid == self.vm.vmid:
            free = next(f"unused{n}" for n in range(256) if f"unused{n}" not in self.vm.config)
            self.vm.config[free] = drive["file"]

    def _remember(self, name: str, before: Any) -> None:
        """What the cloud-init drive of a running VM still says."""
        if not self.vm.running or not drives.cloudinit_of(self.vm.config):
            return
        if options.is_cloudinit(name) or options.is_network(name):
            self.vm.on_drive.setdefault(name, before)
            if self.vm.on_drive[name] == self.vm.config.get(name):
                del self.vm.on_drive[name]
