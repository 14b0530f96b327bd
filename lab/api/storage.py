"""Storages and their content."""

import hashlib
import re
import secrets
from collections.abc import Callable
from typing import Any

from lab.api import archives, drives
from lab.api.errors import ApiError, ParameterError
from lab.api.formats import split_list
from lab.api.routes import Call, route
from lab.api.state import Storage, Volume
from lab.api.tasks import Task
from lab.api.volume_access import is_readable, require_readable, require_removable
from lab.api.volumes import parse_volid

_NODE = "/nodes/{node}/storage"
_CONTENT = f"{_NODE}/{{storage}}/content"
_EXTENSIONS = {
    "iso": r"\.(iso|img)",
    "vztmpl": r"\.tar\.(gz|xz|zst)",
    "import": r"\.(ova|ovf|qcow2|raw|vmdk)",
    "snippets": "",
}

_USES = ["Datastore.Audit", "Datastore.AllocateSpace"]


def _here(call: Call, storage: Storage) -> bool:
    """Return whether the storage is on the requested node."""
    return storage.nodes is None or call.emulator.state.name_of(call.node) in storage.nodes


def _required(call: Call) -> Storage:
    """Return the requested storage. Raises ApiError if it does not exist or is not on this node."""
    storage = call.emulator.volumes.storage(call.params["storage"])
    if not _here(call, storage):
        node = call.emulator.state.name_of(call.node)
        raise ApiError(f"storage '{storage.name}' is not available on node '{node}'")
    return storage


def _numbers(storage: Storage) -> dict[str, Any]:
    """Return the sizes; those of an unavailable storage are 0."""
    usable = storage.usable
    return {
        "total": storage.total if usable else 0,
        "used": storage.used if usable else 0,
        "avail": storage.avail if usable else 0,
        "active": int(usable),
        "enabled": int(storage.enabled),
        "shared": int(storage.shared),
    }


def _about(storage: Storage) -> dict[str, Any]:
    return {"type": storage.type, "content": storage.content, **_numbers(storage)}


@route("GET", _NODE)
def listing(call: Call) -> Any:
    """List storages; a filter by content hides disabled ones."""
    rows = []
    types = split_list(call.params.get("content", ""))
    for name, storage in call.emulator.state.storages.items():
        if not _here(call, storage) or (not storage.enabled and (types or call.params.get("enabled"))):
            continue
        if (types and not set(types) & set(storage.content.split(","))) or name != call.params.get("storage", name):
            continue
        if call.emulator.permissions.allowed(call.user, f"/storage/{name}", _USES, any_of=True):
            sized = storage.usable and storage.total
            fraction = {"used_fraction": storage.used / storage.total} if sized else {}
            rows.append({"storage": name, **_about(storage), **fraction})
    return rows


@route("GET", f"{_NODE}/{{storage}}/status")
def status(call: Call) -> Any:
    if call.params["storage"] not in call.emulator.state.storages:
        raise ParameterError({"storage": "No such storage."})
    return _about(_required(call))


@route("GET", "/storage/{storage}")
def configuration(call: Call) -> Any:
    storage = call.emulator.volumes.storage(call.params["storage"])
    return _configured(storage, _digest(call))


def _configured(storage: Storage, digest: str) -> dict[str, Any]:
    """Return the storage's section of the configuration file, and the digest of that file."""
    mounted = storage.type == "dir" and not storage.active  # the only reason for which a directory cannot be activated
    return {
        "storage": storage.name,
        "type": storage.type,
        "content": storage.content,
        **({"path": storage.path} if storage.path else {}),
        **({"is_mountpoint": "1"} if mounted else {}),
        **({} if storage.enabled else {"disable": 1}),
        "digest": digest,
    }


def _digest(call: Call) -> str:
    text = repr([_configured(storage, "") for storage in call.emulator.state.storages.values()])
    return hashlib.sha1(text.encode()).hexdigest()


@route("GET", "/storage")
def configurations(call: Call) -> Any:
    digest, kind = _digest(call), call.params.get("type")
    return [
        _configured(storage, digest)
        for name, storage in call.emulator.state.storages.items()
        if kind in (None, storage.type)
        and call.emulator.permissions.allowed(call.user, f"/storage/{name}", _USES, any_of=True)
    ]


def _row(volid: str, volume: Volume) -> dict[str, Any]:
    row: dict[str, Any] = {
        "volid": volid,
        "content": volume.content,
        "format": volume.format,
        "size": volume.size,
        "ctime": volume.ctime,
    }
    vmid = parse_volid(volid).vmid
    if volume.content in ("images", "rootdir"):
        row.update(vmid=vmid, used=volume.used, parent=volume.parent)
    if volume.content == "backup":
        row.update(vmid=vmid, subtype=(volume.archive or {}).get("type", "qemu"))
        row.update({"notes": volume.notes.split("\n")[0]} if volume.notes else {})  # a list shows only the first line
        row.update({"protected": 1} if volume.protected else {})
    return row


def _on_node(call: Call, storage: Storage, volid: str, volume: Volume) -> bool:
    """Return whether a volume is on the requested node. Without sharing each node has its own volumes."""
    state = call.emulator.state
    if storage.shared or len(state.nodes) == 1:
        return True
    owner = state.vms.get(parse_volid(volid).vmid or 0) if volume.content in ("images", "rootdir") else None
    return (owner.node if owner else volume.node or state.node) == state.name_of(call.node)


@route("GET", _CONTENT)
def content(call: Call) -> Any:
    """List the volumes that the user may read; volumes to import from are listed for every VMID."""
    storage, params = _required(call), call.params
    call.emulator.volumes.activated(storage.name)
    rows = [
        _row(volid, volume)
        for volid, volume in list(storage.volumes.items())
        if _on_node(call, storage, volid, volume) and is_readable(call, volid)
    ]
    rows = [row for row in rows if row["content"] == params.get("content", row["content"])]
    return [
        row for row in rows if "vmid" not in params or row["content"] == "import" or row.get("vmid") == params["vmid"]
    ]


@route("POST", _CONTENT)
def allocate(call: Call) -> Any:
    storage = call.emulator.volumes.storage(call.params["storage"])
    name, vmid, size = call.params["filename"], call.vmid, call.params["size"]
    number = drives.to_bytes(size) if size[-1].isalpha() else int(size) << 10
    extension = name.rpartition(".")[2] if "." in name else ""
    form = extension if extension in ("raw", "qcow2", "vmdk") else call.params.get("format", "raw")
    volid = f"{storage.name}:{vmid}/{name}" if storage.on_files else f"{storage.name}:{name}"
    call.emulator.volumes.allocate_named(
        storage, volid, Volume("images", form, number, 0, call.emulator.state.clock.seconds())
    )
    return volid


def _volid(call: Call) -> str:
    volume = str(call.params["volume"])
    return volume if ":" in volume else f"{call.params['storage']}:{volume}"


@route("GET", f"{_CONTENT}/{{volume}}")
def volume_about(call: Call) -> Any:
    volid = _volid(call)
    require_readable(call, volid)
    volume = call.emulator.volumes.get(volid)
    kept = volume.content == "backup"
    return {
        "path": call.emulator.volumes.path(volid),
        "size": volume.size,
        "used": volume.used,
        "format": "raw" if kept else volume.format,  # handled like any other file
        **({"protected": int(volume.protected)} if kept else {}),
        **({"notes": volume.notes or ""} if kept else {}),
        **({"parent": volume.parent} if volume.parent else {}),
    }


@route("PUT", f"{_CONTENT}/{{volume}}")
def update(call: Call) -> Any:
    """Update a backup's notes and protection. The right to read the backup is enough."""
    require_readable(call, _volid(call))
    volume = call.emulator.volumes.get(_volid(call))
    volume.notes = call.params.get("notes", volume.notes)
    volume.protected = bool(call.params.get("protected", volume.protected))


@route("DELETE", f"{_CONTENT}/{{volume}}")
def remove(call: Call) -> Any:
    volid, volumes = _volid(call), call.emulator.volumes
    require_removable(call, volid)
    parsed = parse_volid(volid)
    storage = volumes.storage(parsed.storage)

    def work(task: Task) -> None:
        volume = volumes.find(volid)
        if volume and volume.protected:
            raise ApiError(f"cannot remove protected volume '{parsed.name}' on '{storage.name}'")
        if storage.on_files and not volumes.find(volid):
            task.write(f"disk image '{volumes.path(volid)}' does not exist")
        if volume and volume.content == "backup":
            archives.forget(call, volid)
        else:
            volumes.remove(volid)
        task.write(f"Removed volume '{volid}'")

    return call.emulator.tasks.start("imgdel", f"{parsed.vmid or ''}@{parsed.storage}", call.user, work)


@route("POST", f"{_NODE}/{{storage}}/upload")
def upload(call: Call) -> Any:
    volumes, kind = call.emulator.volumes, call.params["content"]
    storage, name = volumes.storage(call.params["storage"]), re.sub(r"[^-\w.]", "_", call.params["filename"])
    if not re.search(f"{_EXTENSIONS[kind]}$", name, re.IGNORECASE):
        raise ParameterError({"filename": "wrong file extension"})
    raw, temporary = call.files.get("filename", b""), f"/var/tmp/pveupload-{secrets.token_hex(16)}"
    volid, form = f"{storage.name}:{kind}/{name}", "iso" if kind == "iso" else name.rpartition(".")[2]
    path = volumes.path(volid)

    def work(task: Task) -> None:
        task.write(f"starting file import from: {temporary}")
        if form == "qcow2" and not raw.startswith(b"QFI\xfb"):
            task.write(f"command '/usr/bin/qemu-img info '--output=json' {temporary} -f qcow2' failed: exit code 1")
            raise ApiError(f"qemu-img: Could not open '{temporary}': Image is not in qcow2 format")
        _require_checksum(call, task, lambda algorithm: hashlib.new(algorithm, raw).hexdigest())
        task.write(
            f"target node: {call.node}",
            f"target file: {path}",
            f"file size is: {len(raw)}",
            f"command: cp -- {temporary} {path}",
        )
        storage.volumes[volid] = Volume(kind, form, len(raw), len(raw), call.emulator.state.clock.seconds())
        task.write("finished file import successfully")

    return call.emulator.tasks.start("imgcopy", "", call.user, work)


def _require_checksum(call: Call, task: Task, digest: Callable[[str], str]) -> None:
    """Raise ApiError, in the task, unless the file matches the given checksum."""
    expected = call.params.get("checksum")
    if expected is None:
        return
    actual = digest(call.params["checksum-algorithm"])
    task.write("calculating checksum...")
    if actual.lower() != str(expected).lower():
        raise ApiError(f"checksum mismatch: got '{actual}' != expect '{expected}'")
    task.write("OK, checksum verified")


@route("POST", f"{_NODE}/{{storage}}/download-url")
def download(call: Call) -> Any:
    """Download a URL that the state lists; the lab has no internet access."""
    name, url, kind = re.sub(r"[^-\w.]", "_", call.params["filename"]), call.params["url"], call.params["content"]
    volumes, state = call.emulator.volumes, call.emulator.state
    storage = volumes.storage(call.params["storage"])
    if kind not in storage.content.split(","):
        raise ParameterError({"content": f"storage '{storage.name}' is not configured for content-type '{kind}'"})
    if not re.search(f"{_EXTENSIONS[kind]}$", name, re.IGNORECASE):
        raise ParameterError({"filename": "wrong file extension"})
    volid = f"{storage.name}:{kind}/{name}"
    path = volumes.path(volid)

    def work(task: Task) -> None:
        task.write(f"downloading {url} to {path}")
        remote = state.web.get(url)
        if remote is None:
            raise ApiError("download failed: the lab's node has no network")
        task.linger()
        if volid in storage.volumes:
            raise ApiError(f"file '{path}' exists already")
        _require_checksum(call, task, lambda algorithm: str(remote.get(algorithm, "unknown")))
        form = "iso" if kind == "iso" else name.rpartition(".")[2]
        size = int(remote["size"])
        if remote.get("like"):
            call.emulator.backend.clone_volume(remote["like"], volid, size)
        storage.volumes[volid] = Volume(kind, form, size, size, state.clock.seconds())
        task.write(f"download of '{url}' to '{path}' finished")

    return call.emulator.tasks.start("download", name, call.user, work)
