"""Guests, virtual machines and containers alike: looking at them, making, changing, powering and removing them."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from nixherd.errors import ApiError
from nixherd.fleet.models import GuestType
from nixherd.proxmox.calls.base import guest_path, upid_of
from nixherd.proxmox.calls.cluster import Cluster
from nixherd.proxmox.errors import NotVisible
from nixherd.proxmox.listings import Pending, Presence, SnapshotRow
from nixherd.proxmox.models import Upid, VmConfig, VmStatus, is_true

QEMU = GuestType.QEMU
_MISSING = re.compile(r"Configuration file '.*' does not exist")


class Guests(Cluster):
    # looking

    def guests(self, node: str, type: GuestType = QEMU) -> tuple[VmStatus, ...]:
        """The guests of a node that the token may see, by VMID."""
        rows = (VmStatus.of(int(row["vmid"]), row) for row in self._get("nodes", node, type))
        return tuple(sorted(rows, key=lambda row: row.vmid))

    def config(
        self, node: str, vmid: int, type: GuestType = QEMU, *, current: bool = False, snapshot: str | None = None
    ) -> VmConfig | None:
        """A guest's configuration, with what waits for its next start; None when there is no such guest on the node.

        `current`: without what waits; `snapshot`: as it was when that was taken, passwords hidden.
        """
        asked = {"current": current or None, "snapshot": snapshot}
        data = self._unless_missing(vmid, lambda: self._get(*guest_path(node, vmid, type), "config", **asked))
        return None if data is None else VmConfig.of(data)

    def status(self, node: str, vmid: int, type: GuestType = QEMU) -> VmStatus | None:
        """A guest's power, asked of the node itself; None when there is no such guest there. NotVisible as above."""
        data = self._unless_missing(vmid, lambda: self._get(*guest_path(node, vmid, type), "status", "current"))
        return None if data is None else VmStatus.of(vmid, data)

    def pending(self, node: str, vmid: int, type: GuestType = QEMU) -> tuple[Pending, ...]:
        """What waits for the guest's next start."""
        rows = map(Pending.of, self._get(*guest_path(node, vmid, type), "pending"))
        return tuple(sorted((row for row in rows if row), key=lambda row: row.key))

    def cloudinit_differs(self, node: str, vmid: int) -> bool:
        """Whether the cloud-init options say something else than what is on the drive."""
        rows = self._get(*guest_path(node, vmid, QEMU), "cloudinit")
        return any("new" in row or "pending" in row or row.get("delete") for row in rows)

    def snapshots(self, node: str, vmid: int, type: GuestType = QEMU) -> tuple[SnapshotRow, ...]:
        """The guest's snapshots, oldest first, without the row for its present state."""
        rows = (SnapshotRow.of(row) for row in self._get(*guest_path(node, vmid, type), "snapshot"))
        return tuple(sorted((row for row in rows if row.name != "current"), key=lambda row: (row.time or 0, row.name)))

    def can_snapshot(self, node: str, vmid: int, type: GuestType = QEMU) -> bool:
        """Whether all disks of the guest can be snapshotted where they are."""
        return is_true(self._get(*guest_path(node, vmid, type), "feature", feature="snapshot").get("hasFeature", 0))

    def snapshot_config(self, node: str, vmid: int, name: str, type: GuestType = QEMU) -> VmConfig:
        """What the guest's configuration was when the snapshot was taken. The guard counts it as looking inside."""
        return VmConfig.of(self._get(*guest_path(node, vmid, type), "snapshot", name, "config"))

    def _unless_missing(self, vmid: int, ask: Callable[[], Any]) -> Any:
        try:
            return ask()
        except ApiError as error:
            if error.status == 500 and _MISSING.search(str(error)):
                return None
            if error.status != 403:
                raise
            # Permissions are checked before existence: a token that may only act in a pool sees this.
            presence = self.presence(vmid)
            if presence is Presence.ABSENT:
                return None
            if presence is Presence.NOT_VISIBLE:
                raise NotVisible(f"guest {vmid}", vmid, self.token_id) from error
            raise ApiError(f"guest {vmid}: whether there is one is unknown: {error}", 403) from error

    # making

    def clone(
        self,
        node: str,
        source: int,
        newid: int,
        *,
        name: str,
        description: str,
        storage: str | None = None,
        target: str | None = None,
        pool: str | None = None,
        full: bool = True,
    ) -> Upid:
        """Begin to copy a VM. Name and description are there from the first moment the copy is whole."""
        return upid_of(
            self._post(
                *("nodes", node, "qemu", source, "clone"),
                newid=newid,
                name=name,
                description=description,
                full=full,
                storage=storage,
                target=target,
                pool=pool,
            )
        )

    def create(self, node: str, vmid: int, values: Mapping[str, object], type: GuestType = QEMU) -> Upid:
        """Begin to make a guest with these options; a container's `ostemplate` names what it is unpacked from."""
        return upid_of(self._post(*guest_path(node, vmid, type)[:-1], vmid=vmid, **values))

    def make_template(self, node: str, vmid: int) -> Upid | None:
        """Turn a stopped VM into a template, for good."""
        data = self._post(*guest_path(node, vmid, QEMU), "template")
        return None if data is None else upid_of(data)

    # changing

    def set_config(
        self,
        node: str,
        vmid: int,
        values: Mapping[str, object],
        type: GuestType = QEMU,
        *,
        digest: str | None = None,
    ) -> None:
        """Set options. With the digest of the configuration they were decided on, a change since is an error."""
        self._put(*guest_path(node, vmid, type), "config", **values, digest=digest)

    def resize(
        self, node: str, vmid: int, disk: str, size: str, type: GuestType = QEMU, *, digest: str | None = None
    ) -> Upid | None:
        """Begin to grow a disk to `size` (`64G`)."""
        data = self._put(*guest_path(node, vmid, type), "resize", disk=disk, size=size, digest=digest)
        return None if data is None else upid_of(data)

    def move_disk(
        self, node: str, vmid: int, disk: str, storage: str, *, delete: bool, digest: str | None = None
    ) -> Upid:
        """Begin to move a disk to another storage; without `delete` the old one stays as `unusedN`."""
        path = guest_path(node, vmid, QEMU)
        return upid_of(self._post(*path, "move_disk", disk=disk, storage=storage, delete=delete, digest=digest))

    def regenerate_cloudinit(self, node: str, vmid: int) -> None:
        """Write the cloud-init drive anew; a stopped VM gets that at its start anyway."""
        self._put("nodes", node, "qemu", vmid, "cloudinit")

    # power

    def start(self, node: str, vmid: int, type: GuestType = QEMU) -> Upid:
        return upid_of(self._post(*guest_path(node, vmid, type), "status", "start"))

    def stop(self, node: str, vmid: int, type: GuestType = QEMU) -> Upid:
        """Pull the plug."""
        return upid_of(self._post(*guest_path(node, vmid, type), "status", "stop"))

    def shutdown(self, node: str, vmid: int, type: GuestType = QEMU, *, timeout: int = 60, force: bool = False) -> Upid:
        """Ask the guest (its agent, else ACPI) to power off within `timeout` seconds; `force` pulls the plug then."""
        path = guest_path(node, vmid, type)
        return upid_of(self._post(*path, "status", "shutdown", timeout=timeout, forceStop=force))

    def reboot(self, node: str, vmid: int, type: GuestType = QEMU, *, timeout: int = 60) -> Upid:
        """Shut the guest down and start it again; pending changes take effect."""
        return upid_of(self._post(*guest_path(node, vmid, type), "status", "reboot", timeout=timeout))

    def suspend(self, node: str, vmid: int, type: GuestType = QEMU, *, to_disk: bool = False) -> Upid:
        """Pause the guest, or write its memory to disk and switch it off."""
        disk = {"todisk": True} if to_disk else {}
        return upid_of(self._post(*guest_path(node, vmid, type), "status", "suspend", **disk))

    def resume(self, node: str, vmid: int, type: GuestType = QEMU) -> Upid:
        return upid_of(self._post(*guest_path(node, vmid, type), "status", "resume"))

    # snapshots

    def take_snapshot(
        self,
        node: str,
        vmid: int,
        name: str,
        type: GuestType = QEMU,
        *,
        description: str | None = None,
        with_memory: bool = False,
    ) -> Upid:
        memory = {"vmstate": True} if with_memory and type is QEMU else {}
        path = guest_path(node, vmid, type)
        return upid_of(self._post(*path, "snapshot", snapname=name, description=description, **memory))

    def remove_snapshot(self, node: str, vmid: int, name: str, type: GuestType = QEMU) -> Upid:
        return upid_of(self._delete(*guest_path(node, vmid, type), "snapshot", name))

    def rollback(self, node: str, vmid: int, name: str, type: GuestType = QEMU) -> Upid:
        """Begin to put disks and configuration back to a snapshot; without memory in it the guest is off then."""
        return upid_of(self._post(*guest_path(node, vmid, type), "snapshot", name, "rollback"))

    # moving and removing

    def migrate(
        self,
        node: str,
        vmid: int,
        target: str,
        type: GuestType = QEMU,
        *,
        online: bool = False,
        local_disks: bool = False,
        storage: str | None = None,
        timeout: int | None = None,
    ) -> Upid:
        """Begin to move a guest to another node. A running container is stopped, moved and started."""
        path = guest_path(node, vmid, type)
        if type is GuestType.LXC:
            restart = {"restart": True, "timeout": timeout} if online else {}
            return upid_of(self._post(*path, "migrate", target=target, **{"target-storage": storage}, **restart))
        disks = {"with-local-disks": True} if local_disks else {}
        data = self._post(*path, "migrate", target=target, online=online, targetstorage=storage, **disks)
        return upid_of(data)

    def migration_obstacles(self, node: str, vmid: int) -> Mapping[str, Any]:
        """What the server says of moving this VM: `local_disks`, `local_resources`, `allowed_nodes`, `running`."""
        return dict(self._get(*guest_path(node, vmid, QEMU), "migrate"))

    def destroy(self, node: str, vmid: int, type: GuestType = QEMU, *, purge: bool = False) -> Upid:
        """Begin to remove a guest and its disks; `purge` also from backup jobs, replication and HA.

        Disks in its name that its configuration does not name stay, whatever the server's default is.
        """
        rest = {"purge": True} if purge else {}
        path = guest_path(node, vmid, type)
        return upid_of(self._delete(*path, **rest, **{"destroy-unreferenced-disks": False}))
