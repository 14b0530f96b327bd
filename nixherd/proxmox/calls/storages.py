"""Storages as a node sees them, their volumes, and backups."""

from collections.abc import Iterable
from pathlib import Path

from nixherd.fleet.models import GuestType
from nixherd.proxmox.calls.base import Calls, guest_path, unless, upid_of
from nixherd.proxmox.listings import Volume
from nixherd.proxmox.models import Storage, Upid, VmConfig
from nixherd.proxmox.upload import Upload

_NO_STORAGE = r"No such storage|storage '[^']*' (does not exist|is not available on node)"


class Storages(Calls):
    def storage(self, node: str, storage: str) -> Storage | None:
        """A storage as that node sees it; None when the node knows no such storage."""
        data = unless(_NO_STORAGE, lambda: self._get("nodes", node, "storage", storage, "status"))
        return None if data is None else Storage.of(storage, data)

    def storages(self, node: str) -> tuple[Storage, ...]:
        """The storages of a node that the token may see, by name."""
        rows = (Storage.of(str(row["storage"]), row) for row in self._get("nodes", node, "storage"))
        return tuple(sorted(rows, key=lambda row: row.name))

    def volumes(
        self, node: str, storage: str, *, content: str | None = None, vmid: int | None = None
    ) -> tuple[Volume, ...]:
        """The volumes of a storage, oldest first; of one guest, or of one kind (`images`, `backup`, …)."""
        rows = self._get("nodes", node, "storage", storage, "content", content=content, vmid=vmid)
        found = (Volume.of(row) for row in rows)
        wanted = (each for each in found if content is None or each.content == content)
        return tuple(sorted(wanted, key=lambda each: (each.ctime or 0, each.volid)))

    def archived_text(self, node: str, archive: str) -> str:
        """The configuration in a backup, with the lines that say which drives it holds.

        The guard counts it as looking inside the guest.
        """
        return str(self._get("nodes", node, "vzdump", "extractconfig", volume=archive))

    def archived_config(self, node: str, archive: str) -> VmConfig:
        """The configuration in a backup. The guard counts it as looking inside the guest."""
        lines = self.archived_text(node, archive).splitlines()
        pairs = (line.partition(":") for line in lines if line and not line.startswith(("#", "[")))
        return VmConfig({key.strip(): value.strip() for key, _, value in pairs})

    def remove_volume(self, node: str, volid: str) -> Upid | None:
        """Begin to remove a volume; None where the server did it at once."""
        storage = volid.partition(":")[0]
        data = self._delete("nodes", node, "storage", storage, "content", *volid.split("/"))
        return None if data is None else upid_of(data)

    def download(self, node: str, storage: str, url: str, filename: str, sha256: str) -> Upid:
        """Have the node fetch an image to import from; one of another SHA-256 is thrown away by it."""
        checksum = {"checksum": sha256, "checksum-algorithm": "sha256"}
        path = ("nodes", node, "storage", storage, "download-url")
        return upid_of(self._post(*path, content="import", filename=filename, url=url, **checksum))

    def upload(self, node: str, storage: str, file: Path, filename: str, sha256: str) -> Upid:
        """Send an image to import from there; the task that follows compares its SHA-256."""
        fields = {"content": "import", "checksum": sha256, "checksum-algorithm": "sha256"}
        body = Upload(file, filename, fields)
        return upid_of(self._send(body, "nodes", node, "storage", storage, "upload"))

    def backup(
        self,
        node: str,
        vmids: Iterable[int],
        storage: str,
        *,
        mode: str = "snapshot",
        compress: str = "zstd",
        notes: str | None = None,
        protected: bool | None = None,
    ) -> Upid:
        """Begin to back guests up. `remove=0`: the server's default would prune older backups of theirs."""
        return upid_of(
            self._post(
                *("nodes", node, "vzdump"),
                vmid=",".join(map(str, vmids)),
                storage=storage,
                mode=mode,
                compress=compress,
                remove=False,
                protected=protected,
                **({"notes-template": notes} if notes else {}),
            )
        )

    def restore(
        self,
        node: str,
        vmid: int,
        archive: str,
        type: GuestType = GuestType.QEMU,
        *,
        storage: str | None = None,
        pool: str | None = None,
        overwrite: bool = False,
    ) -> Upid:
        """Begin to make a guest out of a backup; with `overwrite` in the place of the one that is there."""
        source = {"archive": archive} if type is GuestType.QEMU else {"ostemplate": archive, "restore": True}
        force = {"force": True} if overwrite else {}
        path = guest_path(node, vmid, type)[:-1]
        return upid_of(self._post(*path, vmid=vmid, storage=storage, pool=pool, **source, **force))
