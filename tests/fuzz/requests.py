"""Changing requests: every documented call with a VMID wherever one can hide, and random ones. And what each names.

The oracle is written from what Proxmox VE takes from a request, not by asking our policy: a request is harmless only
when every VMID in it is 110 (managed) or, where a template may stand, 9002.
"""

import json
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

READONLY, IMPORTED, KEPT, TEMPLATE, MANAGED, UNKNOWN = 104, 109, 111, 9002, 110, 105
PROTECTED = (READONLY, IMPORTED, KEPT, UNKNOWN, 100, 999999999)
ARCHIVE = "local:backup/vzdump-qemu-{}-2026_01_02-03_04_05.vma.zst"
SHARED = Path(__file__).parents[3] / "shared" / "pve"
ACTING_GETS = (
    "/nodes/prom/qemu/{}/vncwebsocket",
    "/nodes/prom/qemu/{}/agent/file-read",
    "/nodes/prom/qemu/{}/agent/exec-status",
    "/nodes/prom/qemu/{}/cloudinit/dump",
    "/nodes/prom/qemu/{}/snapshot/clean/config",
    "/nodes/prom/lxc/{}/vncwebsocket",
    "/nodes/prom/qemu/{}/mtunnelwebsocket",
)


@dataclass(frozen=True)
class Request:
    """`path` is below /api2/json; `params` go into the body, of a DELETE or GET into the query.

    `passes`: whether the table lets it through, where that is known without asking it.
    """

    method: str
    path: str
    params: dict[str, Any]
    passes: bool | None = None


def documented() -> list[tuple[str, str]]:
    """Each changing call of the official documentation of both versions, else of the lab's own schema."""
    found: set[tuple[str, str]] = set()
    for version in (8, 9):
        file = SHARED / f"apidoc-{version}.json"
        if file.exists():
            found |= set(_calls(json.loads(file.read_text())))
    if not found:
        schema = json.loads((Path(__file__).parents[2] / "lab" / "api" / "schema.json").read_text())
        found = {(key.split()[0], key.split()[1]) for key in schema["9"] if not key.startswith("GET ")}
    return sorted(found)


def _calls(tree: list[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    for node in tree:
        for method in node.get("info") or {}:
            if method != "GET":
                yield method, node["path"]
        yield from _calls(node.get("children", []))


# Where a VMID can stand beside the path; `{}` is the VMID.
PLACES: tuple[tuple[str, Any], ...] = (
    ("vmid", "{}"),
    ("vmid", "110,{}"),
    ("vmid", ["110", "{}"]),
    ("newid", "{}"),
    ("target-vmid", "{}"),
    ("vms", "{}"),
    ("vms", "110,{}"),
    ("sid", "vm:{}"),
    ("guests", "110;{}"),
    ("vmids", "{}"),
    ("volume", "nvmeprom:vm-{}-disk-0"),
    ("archive", ARCHIVE),
    ("archive", "pbs:backup/vm/{}/2026-01-02T03:04:05Z"),
    ("ostemplate", ARCHIVE),
    ("scsi1", "nvmeprom:vm-{}-disk-0"),
    ("scsi1", "nvmeprom:base-{}-disk-0/vm-{}-disk-1"),
    ("scsi1", "local:{}/vm-{}-disk-0.qcow2"),
    ("scsi1", "local:0,import-from=local:{}/vm-{}-disk-0.raw"),
    ("scsi1", "nvmeprom:vm-110-disk-0,file=nvmeprom:vm-{}-disk-0"),
    ("rootfs", "nvmeprom:subvol-{}-disk-0"),
    ("efidisk0", "nvmeprom:vm-{}-disk-0"),
    ("unused0", "nvmeprom:vm-{}-disk-0"),
    ("hostpci0", "vm-{}-disk-0"),
    ("delete", "vm-{}-disk-0"),
)


def systematic() -> Iterator[Request]:
    """All that the table lets through, the GETs that act, and every documented call, × who × where."""
    for method, path, params in GOOD:
        for vmid in (*PROTECTED, MANAGED):
            yield Request(method, path.format(vmid), _filled_in(params, vmid), passes=vmid == MANAGED)
    for path in ACTING_GETS:
        for vmid in (*PROTECTED, TEMPLATE, MANAGED):
            yield Request("GET", path.format(vmid), {"file": "/etc/shadow", "pid": 1, "type": "user"})
    for method, template in documented():
        for vmid in (*PROTECTED, TEMPLATE, MANAGED):
            if "{vmid}" in template:
                yield Request(method, filled(template, vmid), {})
            for key, value in PLACES:
                yield Request(method, filled(template, MANAGED), {key: _with(value, vmid)})


def _filled_in(params: dict[str, Any], vmid: object) -> dict[str, Any]:
    return {key: _with(value, vmid) if isinstance(value, (str, list)) else value for key, value in params.items()}


# What may be sent for the managed guest, written down here by hand; `{}` is its VMID.
_VM = "/nodes/prom/qemu/{}"
GOOD: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("POST", f"{_VM}/status/start", {}),
    ("POST", f"{_VM}/status/stop", {}),
    ("POST", f"{_VM}/status/shutdown", {"timeout": 1, "forceStop": 1}),
    ("POST", f"{_VM}/status/reboot", {}),
    ("POST", f"{_VM}/status/suspend", {"todisk": 0}),
    ("POST", f"{_VM}/status/resume", {}),
    ("PUT", f"{_VM}/config", {"cores": 2, "memory": "1024", "net0": "virtio,bridge=vmbr0", "digest": "0" * 40}),
    ("PUT", f"{_VM}/config", {"scsi1": "nvmeprom:vm-{}-disk-1,ssd=1"}),
    ("PUT", f"{_VM}/config", {"scsi1": "nvmeprom:base-9002-disk-0/vm-{}-disk-1"}),
    ("PUT", f"{_VM}/config", {"scsi1": "local:0,import-from=local:{}/vm-{}-disk-0.raw"}),
    ("PUT", f"{_VM}/config", {"delete": "net1,unused0", "description": "vm-104-disk-0"}),
    ("PUT", f"{_VM}/resize", {"disk": "scsi0", "size": "64G"}),
    ("PUT", f"{_VM}/cloudinit", {}),
    ("POST", f"{_VM}/move_disk", {"disk": "scsi0", "storage": "nvmeprom", "delete": 1}),
    ("POST", f"{_VM}/migrate", {"target": "prom2", "online": 1}),
    ("POST", f"{_VM}/snapshot", {"snapname": "clean"}),
    ("POST", f"{_VM}/snapshot/clean/rollback", {}),
    ("DELETE", f"{_VM}/snapshot/clean", {}),
    ("GET", f"{_VM}/snapshot/clean/config", {}),
    ("POST", f"{_VM}/template", {}),
    ("POST", f"{_VM}/clone", {"newid": "{}", "name": "dev"}),
    ("POST", "/nodes/prom/qemu/9002/clone", {"newid": "{}", "name": "dev", "full": 1}),
    ("POST", "/nodes/prom/qemu", {"vmid": "{}", "name": "dev", "scsi0": "nvmeprom:8"}),
    ("POST", "/nodes/prom/qemu", {"vmid": 110, "archive": ARCHIVE, "force": 1}),
    ("DELETE", _VM, {"purge": 1}),
    ("POST", "/nodes/prom/vzdump", {"vmid": "{}", "storage": "local", "remove": 0}),
    ("GET", "/nodes/prom/vzdump/extractconfig", {"volume": ARCHIVE}),
    ("GET", f"{_VM}/agent/exec-status", {"pid": 1}),
)


def filled(template: str, vmid: object) -> str:
    names = {"node": "prom", "vmid": str(vmid), "storage": "local", "snapname": "clean", "command": "ping"}
    return re.sub(r"\{(\w+)\}", lambda match: names.get(match[1], "x"), template)


def _with(value: Any, vmid: object) -> Any:
    return [_with(each, vmid) for each in value] if isinstance(value, list) else value.replace("{}", str(vmid))


# Random ones

_TAILS = (
    *("", "/config", "/clone", "/resize", "/move_disk", "/template", "/migrate", "/snapshot", "/snapshot/clean"),
    *("/snapshot/clean/rollback", "/cloudinit", "/agent/exec", "/agent/ping", "/agent/file-write", "/status/start"),
    *("/status/stop", "/status/shutdown", "/status/reboot", "/status/suspend", "/unlink", "/vncproxy", "/sendkey"),
)
_METHODS = ("POST", "PUT", "DELETE", "PATCH", "POST", "PUT", "post", "OPTIONS")
_VMIDS: tuple[Any, ...] = (
    *PROTECTED, TEMPLATE, *([MANAGED] * 6), "0104", "+104", "104.0", "1e2", "１０４", "١٠٤", " 104", "104 ", "110\t",
    "%31%30%34", "110%2f..%2f104", "110/../104", "110//104", "110;104", "110,104", "110%00", "", "-1", "0x68", "104\n",
)  # fmt: skip
_BASES = (
    *(["/nodes/prom/qemu/{}{}"] * 8), "/nodes/prom/lxc/{}{}", "/nodes/prom2/qemu/{}{}", "/nodes/prom/./qemu/{}{}",
    "/nodes/prom/qemu/110/..%2f{}{}", "/nodes/prom/qemu/%2e%2e/qemu/{}{}", "//nodes/prom/qemu/{}{}",
    "/nodes/prom/qemu/{}{}?vmid=104", "/nodes/prom/qemu/{}{}#x", "/nodes/prom/QEMU/{}{}", "/nodes/prom/qemu/{}{}/",
)  # fmt: skip
_HARMLESS: tuple[tuple[str, Any], ...] = (
    *(("cores", 2), ("memory", "1024"), ("digest", "0" * 40), ("name", "dev"), ("full", 1), ("timeout", 5)),
    *(("disk", "scsi0"), ("size", "64G"), ("snapname", "clean"), ("target", "prom2"), ("storage", "nvmeprom")),
    *(("tags", "a;b"), ("onboot", True), ("net0", "virtio,bridge=vmbr0"), ("command", ["/bin/true"]), ("online", 1)),
    *(("description", "vm-104-disk-0"), ("delete", "net1"), ("scsi1", "nvmeprom:8"), ("purge", 1), ("newid", 110)),
)


def random_request(dice: random.Random) -> Request:
    """Pieces of real requests, tricks, and VMIDs of all kinds; one in eight is what may be sent, for whomever."""
    vmid = dice.choice(_VMIDS)
    if dice.random() < 0.125:
        method, path, expected = dice.choice(GOOD)
        return Request(method, path.format(vmid), _filled_in(expected, vmid), passes=vmid == MANAGED or None)
    if dice.random() < 0.1:
        method, template = dice.choice(_DOCUMENTED)
        path = filled(template, vmid)
    else:
        method, path = dice.choice(_METHODS), dice.choice(_BASES).format(vmid, dice.choice(_TAILS))
    params: dict[str, Any] = {}
    for _ in range(dice.choice((0, 0, 1, 1, 2, 3))):
        if dice.random() < 0.35:
            key, value = dice.choice(PLACES)
            params[key] = _with(value, dice.choice(_VMIDS))
        else:
            key, value = dice.choice(_HARMLESS)
            params[key] = value
    if dice.random() < 0.05:
        params[dice.choice(("Vmid", "skiplock", "force", "args", "x", "lock"))] = dice.choice((1, "104", [104, 110]))
    return Request(method, path, params)


_DOCUMENTED = documented()


# What a request names, by what the server would make of it

_NUMBER = re.compile(r"\d+")
_IN_VOLUME = re.compile(r"(?:vm|base|subvol|basevol|vzdump-[a-z]+)-(\d+)|(?:^|[:/])(\d{2,})/|backup/(?:vm|ct)/(\d+)")
_NAMES_GUESTS = {"vmid", "vmids", "newid", "target-vmid", "vms", "guests", "sid", "Vmid"}
_STORED = {"description", "tags", "name", "command", "input-data", "notes"}


def _resolved(path: str) -> list[str]:
    """The segments of a path once `.` and `..` are resolved, which the HTTP library does before anything is judged."""
    kept: list[str] = []
    for segment in re.split(r"[/?&=#;]", path):
        if segment == "..":
            kept = kept[:-1]
        elif segment != ".":
            kept.append(segment)
    return kept


def named(request: Request) -> set[str]:
    """Every number in the request, as it is written, by which a guest is meant; `?` for what cannot be told."""
    found: set[str] = set()
    for segment in _resolved(request.path):
        if re.search(r"%|[^\x21-\x7e]", segment):
            found.add("?")
        elif re.fullmatch(r"[+-]?[\d.,]+", segment):
            found.add(segment)
        found.update(number for match in _IN_VOLUME.findall(segment) for number in match if number)
    for key, value in request.params.items():
        for text in value if isinstance(value, list) else [value]:
            if key in _NAMES_GUESTS:
                found.update(re.split(r"[,;:\s]+", str(text).removeprefix("vm:")) if str(text) else ["?"])
            elif key not in _STORED:
                found.update(number for match in _IN_VOLUME.findall(str(text)) for number in match if number)
    return found
