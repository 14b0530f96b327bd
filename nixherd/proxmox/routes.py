"""Every request that may be sent, one row each: what it does, and where it names guests. What has no row is refused.

Left out with intent: whatever is for a whole node or cluster (stopall, migrateall, HA, pools, users, ACL, firewall),
consoles, `skiplock`, `force` of a migration, and calls that nobody here needs.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum, auto
from types import MappingProxyType

from nixherd.proxmox.references import Kind


class Effect(StrEnum):
    """What a request does to the guests that it names."""

    READ = auto()  # names guests freely
    POWER = auto()
    CONFIG = auto()
    DATA = auto()  # reads, copies or replaces what is inside or on its disks, or moves them
    DESTROY = auto()


class Guest(StrEnum):
    """How the VMID in a path counts."""

    CHANGED = "changed"  # must be declared and changeable
    SOURCE = "source"  # the declared template serves as well: it is only copied
    LOOKED_INTO = "looked into"  # a managed guest's file; which files is the policy's affair


@dataclass(frozen=True, slots=True)
class Route:
    """A request that may be sent. `path` as the API's documentation writes it; a trailing `{volume}` holds slashes.

    `indexed` are families of parameters (`net0` … `net31`) by their name without the number. `template` and `trial`:
    it may also name the declared template that is being made, or the clone that tries it (`nixherd.proxmox.making`).
    """

    method: str
    path: str
    effect: Effect
    parameters: Mapping[str, Kind] = field(default_factory=dict)
    indexed: Mapping[str, Kind] = field(default_factory=dict)
    required: tuple[str, ...] = ()
    guest: Guest = Guest.CHANGED
    volume: Kind | None = None
    template: bool = False
    trial: bool = False

    def kind_of(self, parameter: str) -> Kind | None:
        """How a parameter is read; None where the call has no such parameter."""
        if parameter in self.parameters:
            return self.parameters[parameter]
        match = _INDEXED.fullmatch(parameter)
        return self.indexed.get(match[1]) if match else None


_INDEXED = re.compile(r"([a-z]+)(?:0|[1-9][0-9]{0,2})", re.ASCII)

_K = Kind
_QEMU, _LXC = "/nodes/{node}/qemu", "/nodes/{node}/lxc"
_VM, _CT = f"{_QEMU}/{{vmid}}", f"{_LXC}/{{vmid}}"
_STORE = "/nodes/{node}/storage/{storage}"


def _of(kind: Kind, names: str) -> dict[str, Kind]:
    return dict.fromkeys(names.split(), kind)


_OPTIONS = {
    **_of(_K.INTEGER, "balloon cores cpuunits memory shares sockets swap vcpus"),
    **_of(_K.BOOLEAN, "acpi ciupgrade kvm localtime numa onboot protection tablet"),
    **_of(_K.NAME, "bios citype digest hotplug machine ostype scsihw"),
    **_of(_K.PROPERTIES, "agent boot cpu cpulimit features startup vga"),
    **_of(_K.TEXT, "ciuser description name nameserver searchdomain sshkeys tags"),
    **_of(_K.OPTIONS, "delete revert"),
}
_VM_OPTIONS = {key: kind for key, kind in _OPTIONS.items() if key not in ("features", "swap")}
_VM_DEVICES = {
    **_of(_K.DRIVE, "ide sata scsi virtio efidisk tpmstate"),
    **_of(_K.PROPERTIES, "net ipconfig"),
    "hostpci": _K.MAPPING,
    "serial": _K.SOCKET,
}
_NEW = {"vmid": _K.NEW_VMID, "pool": _K.NAME, "storage": _K.STORAGE, "start": _K.BOOLEAN, "bwlimit": _K.INTEGER}
_CT_OPTIONS = {
    **{
        key: _OPTIONS[key]
        for key in ("cores", "memory", "swap", "onboot", "protection", "digest", "features", "startup")
    },
    **{
        key: _OPTIONS[key]
        for key in ("cpulimit", "cpuunits", "ostype", "description", "nameserver", "searchdomain", "tags")
    },
    **_of(_K.OPTIONS, "delete revert"),
    "hostname": _K.TEXT,
}
_CT_DEVICES = {"net": _K.PROPERTIES, "mp": _K.DRIVE}
_SNAPSHOT = {"snapname": _K.NAME, "description": _K.TEXT}
_SHUTDOWN = {"timeout": _K.INTEGER, "forceStop": _K.BOOLEAN}
_RESIZE = {"disk": _K.NAME, "size": _K.SIZE, "digest": _K.NAME}


def _reading() -> Iterator[Route]:
    lists = {
        "/version": "",
        "/access/permissions": "",
        "/access/users/{user}/token/{token}": "",
        "/cluster/nextid": "vmid",
        "/cluster/resources": "type",
        "/cluster/status": "",
        "/cluster/options": "",
        "/cluster/tasks": "",
        "/cluster/mapping/pci": "check-node",
        "/cluster/mapping/pci/{name}": "",
        "/pools": "poolid",
        "/pools/{name}": "",
        "/storage": "type",
        "/storage/{storage}": "",
        "/nodes": "",
        "/nodes/{node}/status": "",
        "/nodes/{node}/time": "",
        "/nodes/{node}/version": "",
        "/nodes/{node}/network": "type",
        "/nodes/{node}/capabilities/qemu/machines": "",
        "/nodes/{node}/hardware/pci": "",
        "/nodes/{node}/vzdump/defaults": "storage",
        "/nodes/{node}/tasks": "source typefilter vmid limit start errors since until statusfilter userfilter",
        "/nodes/{node}/tasks/{upid}/status": "",
        "/nodes/{node}/tasks/{upid}/log": "limit start",
        "/nodes/{node}/storage": "content enabled storage format target",
        f"{_STORE}/status": "",
        f"{_STORE}/content": "content vmid",
        f"{_VM}/migrate": "target",
        f"{_VM}/cloudinit": "",
        f"{_VM}/agent/network-get-interfaces": "",
        f"{_VM}/agent/get-osinfo": "",
        f"{_VM}/agent/get-host-name": "",
        f"{_VM}/agent/info": "",
        f"{_CT}/interfaces": "",
    }
    for base, guest in ((_QEMU, _VM), (_LXC, _CT)):
        lists |= {base: "full", f"{guest}/status/current": "", f"{guest}/pending": "", f"{guest}/snapshot": ""}
        lists |= {f"{guest}/config": "current snapshot", f"{guest}/feature": "feature snapname"}
    for path, parameters in lists.items():
        yield Route("GET", path, Effect.READ, _of(_K.TEXT, parameters))


def _both(base: str, guest: str, devices: Mapping[str, Kind], options: Mapping[str, Kind]) -> Iterator[Route]:
    """What virtual machines and containers have in common."""
    machine = guest == _VM
    # what no configuration names was neither announced nor saved
    gone = {"purge": _K.BOOLEAN, "destroy-unreferenced-disks": _K.ZERO}
    yield Route("DELETE", guest, Effect.DESTROY, gone, template=machine, trial=machine)
    yield Route("PUT", f"{guest}/config", Effect.CONFIG, options, devices)
    yield Route("PUT", f"{guest}/resize", Effect.DATA, _RESIZE, required=("disk", "size"))
    for verb, parameters in {
        "start": {},
        "stop": {"timeout": _K.INTEGER} if guest == _VM else {},
        "shutdown": _SHUTDOWN,
        "reboot": {"timeout": _K.INTEGER},
        "suspend": {"todisk": _K.BOOLEAN, "statestorage": _K.STORAGE} if guest == _VM else {},
        "resume": {},
    }.items():
        trial = machine and verb in ("start", "stop")
        yield Route("POST", f"{guest}/status/{verb}", Effect.POWER, parameters, trial=trial)
    memory = {"vmstate": _K.BOOLEAN} if guest == _VM else {}
    yield Route("POST", f"{guest}/snapshot", Effect.DATA, {**_SNAPSHOT, **memory}, required=("snapname",))
    yield Route("PUT", f"{guest}/snapshot/{{snapname}}/config", Effect.CONFIG, {"description": _K.TEXT})
    yield Route("DELETE", f"{guest}/snapshot/{{snapname}}", Effect.DESTROY)
    yield Route("POST", f"{guest}/snapshot/{{snapname}}/rollback", Effect.DATA, {"start": _K.BOOLEAN})
    # shows the hash of cloud-init's password
    yield Route("GET", f"{guest}/snapshot/{{snapname}}/config", Effect.DATA)


def _machines() -> Iterator[Route]:
    yield from _both(_QEMU, _VM, _VM_DEVICES, _VM_OPTIONS)
    new = {**_NEW, "archive": _K.ARCHIVE, **_of(_K.BOOLEAN, "force unique")}
    create = {**{key: kind for key, kind in _VM_OPTIONS.items() if kind is not _K.OPTIONS and key != "digest"}, **new}
    yield Route("POST", _QEMU, Effect.DATA, create, _VM_DEVICES, required=("vmid",), template=True)
    yield Route("PUT", f"{_VM}/cloudinit", Effect.CONFIG)
    yield Route("POST", f"{_VM}/template", Effect.DATA, template=True)
    yield Route(
        *("POST", f"{_VM}/clone", Effect.DATA),
        {
            **{"newid": _K.NEW_VMID, "target": _K.NODE, "storage": _K.STORAGE, "pool": _K.NAME, "full": _K.BOOLEAN},
            **_of(_K.TEXT, "name description"),
        },
        required=("newid",),
        guest=Guest.SOURCE,
        trial=True,
    )
    yield Route(
        *("POST", f"{_VM}/move_disk", Effect.DATA),
        {
            **{"disk": _K.NAME, "storage": _K.STORAGE, "delete": _K.BOOLEAN, "format": _K.NAME, "bwlimit": _K.INTEGER},
            **{"digest": _K.NAME, "target-vmid": _K.VMID, "target-disk": _K.NAME, "target-digest": _K.NAME},
        },
        required=("disk",),
    )
    yield Route(
        *("POST", f"{_VM}/migrate", Effect.DATA),
        {
            **{"target": _K.NODE, "targetstorage": _K.STORAGES, "bwlimit": _K.INTEGER},
            **_of(_K.BOOLEAN, "online with-local-disks"),
        },
        required=("target",),
    )
    yield Route("POST", f"{_VM}/agent/ping", Effect.DATA)
    yield Route("POST", f"{_VM}/agent/exec", Effect.DATA, {"command": _K.WORDS, "input-data": _K.TEXT}, trial=True)
    # each result is given out once
    yield Route("GET", f"{_VM}/agent/exec-status", Effect.DATA, {"pid": _K.INTEGER}, trial=True)
    yield Route("GET", f"{_VM}/agent/file-read", Effect.DATA, {"file": _K.TEXT}, guest=Guest.LOOKED_INTO)


def _containers() -> Iterator[Route]:
    yield from _both(_LXC, _CT, {**_CT_DEVICES}, _CT_OPTIONS)
    new = {**_NEW, "ostemplate": _K.UNPACKED, **_of(_K.BOOLEAN, "restore force unique unprivileged")}
    create = {**{key: kind for key, kind in _CT_OPTIONS.items() if kind is not _K.OPTIONS and key != "digest"}, **new}
    yield Route(
        *("POST", _LXC, Effect.DATA),
        {**create, "rootfs": _K.DRIVE, "ssh-public-keys": _K.TEXT},
        _CT_DEVICES,
        required=("vmid", "ostemplate"),
    )
    yield Route(
        *("POST", f"{_CT}/migrate", Effect.DATA),
        {
            **{"target": _K.NODE, "target-storage": _K.STORAGES, "bwlimit": _K.INTEGER, "timeout": _K.INTEGER},
            **_of(_K.BOOLEAN, "online restart"),
        },
        required=("target",),
    )


def _backups() -> Iterator[Route]:
    yield Route(
        *("POST", "/nodes/{node}/vzdump", Effect.DATA),
        {
            **{"vmid": _K.VMIDS, "storage": _K.STORAGE, "remove": _K.ZERO, "notes-template": _K.TEXT},
            **_of(_K.NAME, "mode compress"),
            **_of(_K.INTEGER, "zstd bwlimit"),
            "protected": _K.BOOLEAN,
        },
        # without `remove` older backups are pruned
        required=("vmid", "storage", "remove"),
    )
    yield Route(
        *("GET", "/nodes/{node}/vzdump/extractconfig", Effect.DATA), {"volume": _K.ARCHIVE}, required=("volume",)
    )
    backup = f"{_STORE}/content/{{volume}}"
    yield Route("DELETE", backup, Effect.DESTROY, volume=_K.ARCHIVE)
    kept = {"notes": _K.TEXT, "protected": _K.BOOLEAN}
    yield Route("PUT", backup, Effect.CONFIG, kept, volume=_K.ARCHIVE)


def _images() -> Iterator[Route]:
    """What a template is made out of, brought to a storage: by the node itself, or from here."""
    image = {"content": _K.IMPORT, "filename": _K.IMAGE, **_of(_K.NAME, "checksum checksum-algorithm")}
    for path, more in (("download-url", {"url": _K.TEXT}), ("upload", {})):
        parameters = {**image, **more}
        yield Route(*("POST", f"{_STORE}/{path}", Effect.DATA, parameters), required=tuple(parameters), template=True)


ROUTES: tuple[Route, ...] = (*_reading(), *_machines(), *_containers(), *_backups(), *_images())


# Finding a request's row

_SEGMENTS: Mapping[str, re.Pattern[str]] = MappingProxyType(
    {
        name: re.compile(pattern, re.ASCII)
        for name, pattern in {
            "node": r"[A-Za-z0-9][A-Za-z0-9-]*",
            "vmid": r"[1-9][0-9]{2,8}",
            "storage": r"[A-Za-z][A-Za-z0-9_.-]*[A-Za-z0-9]",
            "snapname": r"[A-Za-z][A-Za-z0-9_-]*",
            "upid": r"UPID(:[A-Za-z0-9_@!.+-]*){8}",
            "user": r"[A-Za-z0-9_.+-]+@[A-Za-z0-9_.-]+",
            "token": r"[A-Za-z][A-Za-z0-9_.-]+",
            "name": r"[A-Za-z][A-Za-z0-9_.-]*",
            "volume": r"[A-Za-z0-9_.:/+-]+",
        }.items()
    }
)


@dataclass(frozen=True, slots=True)
class Found:
    """A request's row, and what its path says by name."""

    route: Route
    names: Mapping[str, str]


def find(method: str, path: str) -> Found | None:
    """The row of a request, None where there is none. `path` as it goes over the wire: nothing is decoded."""
    segments = path.split("/")
    for route, pattern in _INDEX.get((method, segments[1] if len(segments) > 1 else "", len(segments)), ()):
        names = _match(pattern, segments)
        if names is not None:
            return Found(route, names)
    for route, pattern in _VOLUMES:  # a volume's name may hold slashes
        if route.method == method and len(segments) >= len(pattern):
            head = len(pattern) - 1
            names = _match(pattern, [*segments[:head], "/".join(segments[head:])])
            if names is not None:
                return Found(route, names)
    return None


def _match(pattern: tuple[str, ...], segments: list[str]) -> dict[str, str] | None:
    names: dict[str, str] = {}
    for wanted, segment in zip(pattern, segments, strict=True):
        if wanted.startswith("{"):
            name = wanted[1:-1]
            if not _SEGMENTS[name].fullmatch(segment):
                return None
            names[name] = segment
        elif wanted != segment:
            return None
    return names


def _index() -> Mapping[tuple[str, str, int], tuple[tuple[Route, tuple[str, ...]], ...]]:
    rows: dict[tuple[str, str, int], list[tuple[Route, tuple[str, ...]]]] = {}
    for route in ROUTES:
        pattern = tuple(route.path.split("/"))
        rows.setdefault((route.method, pattern[1], len(pattern)), []).append((route, pattern))
    return MappingProxyType({key: tuple(found) for key, found in rows.items()})


_INDEX = _index()
_VOLUMES = tuple((route, tuple(route.path.split("/"))) for route in ROUTES if route.volume)
