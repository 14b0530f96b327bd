"""Every row of the guard's table is sent by a step or a call that the product uses: no right that nobody needs."""

import ast
import inspect
import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from nixherd.base.errors import ApiError, Usage
from nixherd.fleet.models import CloudInitSettings, ContainerSettings, Device, GuestType, Settings, Vm
from nixherd.proxmox import steps
from nixherd.proxmox.answers import Upid
from nixherd.proxmox.calls import Agent, Guests, Storages
from nixherd.proxmox.config import VmConfig
from nixherd.proxmox.guard.routes import ROUTES, find
from nixherd.proxmox.guest import aftermath, desired
from nixherd.proxmox.guest.hardware import AddCloudInitDrive, ConfigureGuest, PassThrough, SetCloudInit, SetNetwork
from nixherd.proxmox.guest.identity import ActualVm
from nixherd.proxmox.guest.plan import Desired, compared
from nixherd.proxmox.guest.verb import Guest, Verb
from nixherd.proxmox.steps import Step
from nixherd.proxmox.steps.hardware import CONFIG
from nixherd.proxmox.template import create
from nixherd.proxmox.template.image import Source, TemplateSpec
from nixherd.proxmox.wire import Tasks, Upload
from tests.nixherd.proxmox.fleets import DEV, FLEET, HOST, KEY
from tests.nixherd.proxmox.test_proxmox_steps import CASES, UPID

ROOT = Path(__file__).parents[3]
CALLS = (Guests, Storages, Tasks, Agent)
OF_A_CLIENT = {"change", "making", "recount"}  # of no request of their own
ARGUMENTS: Mapping[str, Any] = {
    **{"node": "prom", "vmid": 110, "upid": Upid.parse(UPID), "storage": "local", "user": "nixherd@pve", "pool": "lab"},
    **{"name": "clean", "archive": "local:backup/vzdump-qemu-110-2026_01_02-03_04_05.vma.zst", "values": {"cores": 2}},
    **{"url": "https://example.org/x.qcow2", "file": Path("x.qcow2"), "filename": "nixherd-9002-01.qcow2"},
    **{"sha256": "0" * 64, "path": "/etc/os-release", "argv": ["/bin/true"]},
    # what may be left out
    **{"current": True, "snapshot": "clean", "content": "images", "limit": 5, "errors": True, "input": "x"},
}
ANSWER = {"pid": 1, "exited": 1}  # of the agent: what it runs has ended


class Recorder(*CALLS):  # type: ignore[misc]  # the four, as Client has them
    """Notes what the calls send, and answers what few of them can read."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[tuple[str, str, set[str]]] = []
        self.token_id = "nixherd@pve!lab"

    def _ask(self, method: str, path: Sequence[object], parameters: Mapping[str, object] | Upload) -> Any:
        form = {**parameters.fields, "filename": ""} if isinstance(parameters, Upload) else parameters
        names = {key for key, value in form.items() if value is not None}
        self.sent.append((method, "/" + "/".join(map(str, path)), names))
        return dict(ANSWER)


@cache
def used() -> tuple[set[str], set[str]]:
    """What the product uses of a client (`client.status`, `self.is_free` in the calls), and all that it calls."""
    attributes, called = set[str](), set[str]()
    places = [ROOT / name for name in ("nixherd", "operations", "facts", "deploys")]
    for file in itertools.chain.from_iterable(place.rglob("*.py") for place in places):
        owners = {"client", "guarded", *(("self",) if file.parent.name == "proxmox" else ())}
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Attribute) and _last(node.value) in owners:
                attributes.add(node.attr)
            elif isinstance(node, ast.Call):
                called.add(_last(node.func))
    return attributes - OF_A_CLIENT, called


def _last(node: ast.AST) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def of_calls() -> Iterator[tuple[str, str, set[str]]]:
    """What the calls send that the product uses, for both kinds of guests, with all that they can say and without."""
    attributes, _ = used()
    for name, method in inspect.getmembers(Recorder, inspect.isfunction):
        if name.startswith("_") or name not in attributes:
            continue
        parameters = {key: each for key, each in inspect.signature(method).parameters.items() if key != "self"}
        needed = {key: ARGUMENTS[key] for key, each in parameters.items() if each.default is each.empty}
        possible = {key: ARGUMENTS[key] for key in parameters if key in ARGUMENTS}
        for type, given in itertools.product(GuestType, (needed, possible)):
            recorder = Recorder()
            with suppress(ApiError):  # it cannot read the answer
                method(recorder, **given, **({"type": type} if parameters.get("type") is not None else {}))
            yield from recorder.sent


def of_steps() -> Iterator[tuple[str, str]]:
    _, called = used()
    for step in CASES:
        if type(step).__name__ in called and (route := step.requests.get(step.type)):
            yield route.method, "/" + "/".join(map(str, route.filled(step.names())))


FULL = Settings(
    *(2, 512, "host", "q35", "ovmf", ("scsi0", "net0"), False, "notes", True, True, "order=2", "nixherd"),
    disks=tuple(Device(f"{bus}1", size=8 << 30) for bus in ("ide", "sata", "scsi", "virtio")),
    networks=(Device("net0", {"bridge": "vmbr1"}),),
    pci=(Device("hostpci0", {"mapping": "igpu"}),),
    cloud_init=CloudInitSettings("ops", (KEY,), {"ipconfig1": "ip=dhcp"}, "192.0.2.1", "lan", upgrade=False),
    container=ContainerSettings("local:vztmpl/debian.tar.zst", 256, unprivileged=True, features="nesting=1"),
)
MOUNT = Device("mp0", {"mp": "/srv"}, 8 << 30)
TEMPLATE_SPEC = TemplateSpec(
    *("prom", 9002, "template", "tank", "ovmf", "nixherd", "vmbr0", 2, 2048, "trials"),
    *(Source("local:import/image.qcow2"), None, "homelab"),
)
PRESENT = {
    "agent": "1",
    "ide2": "tank:cloudinit,media=cdrom",
    "boot": "order=scsi0",
    "scsi0": "tank:vm-110-disk-0,size=4G",
}
OF_VERBS: Mapping[str, Any] = {
    **dict.fromkeys(("cores", "sockets", "memory", "balloon"), 1024),
    **dict.fromkeys(("agent", "onboot", "protection", "upgrade"), True),
    **{"cpu": "host", "machine": "q35", "bios": "ovmf", "boot": ["scsi0"], "tags": ["a"], "description": "notes"},
    **{
        "startup": "order=2,up=30",
        "unset": ["startup"],
        "user": "ops",
        "keys": [KEY],
        "addresses": {"ipconfig0": "ip=dhcp"},
    },
    **{"nameserver": "192.0.2.1", "search_domain": "lan"},
}
MADE_OF_VALUES = (steps.Configure, steps.CloudInit, steps.Create)


def of_definitions() -> Iterator[Step]:
    """What is done to a guest so that it is as its definition says that says everything, and to make it."""
    vm, ct = replace(DEV, tags=("a",), settings=FULL), replace(DEV, type=GuestType.LXC, tags=("a",), settings=FULL)
    ct = replace(ct, settings=replace(FULL, disks=(MOUNT,)))
    for each in (vm, ct):
        yield from compared(Desired(FLEET, each, HOST), ActualVm(VmConfig(PRESENT), running=True, node="prom"))
    yield desired.empty_vm(FLEET, vm, HOST)
    yield desired.creation(FLEET, ct, HOST)
    yield steps.Create("prom", 9002, "template", create.options(TEMPLATE_SPEC, "local:import/image.qcow2"))


def of_verbs() -> Iterator[Step]:
    """What the verbs send that set options, by each of their parameters."""
    verbs: Sequence[type[Verb]] = (ConfigureGuest, SetCloudInit)
    for kind, verb in itertools.product(GuestType, verbs):
        for name in verb.parameters():
            with suppress(Usage):  # such a guest does not have it
                yield from looked(verb.read(**{name: OF_VERBS[name]}), replace(DEV, type=kind))
    drives = (AddCloudInitDrive(f"{bus}3", "tank") for bus in ("ide", "sata", "scsi"))
    for each in (SetNetwork(bridge="vmbr1"), PassThrough(mapping="igpu"), *drives):
        yield from looked(each, DEV)


def looked(verb: Verb, vm: Vm) -> Sequence[Step]:
    verb.check(FLEET, vm)
    actual = ActualVm(VmConfig({"startup": "order=1"}), running=False, node="prom")
    guest = SimpleNamespace(ours=actual, vm=vm, fleet=FLEET, label="it", storage=lambda name: name)
    return tuple(verb.look(cast(Guest, guest)))


def of_taking_back() -> Iterator[str]:
    """What is sent to take back what a server kept of a change that it refused, whatever the step."""
    calls = (node for node in ast.walk(ast.parse(inspect.getsource(aftermath))) if isinstance(node, ast.Call))
    for call in calls:
        if _last(call.func) == "_sent":
            yield from (str(key.value) for key in cast(ast.Dict, call.args[2]).keys if isinstance(key, ast.Constant))


def sent_by_steps() -> dict[tuple[str, str], set[str]]:
    """By row, the parameters that it is sent with, without the numbers of devices."""
    sent: dict[tuple[str, str], set[str]] = {}
    # what a case sets says nothing of which options the product sets
    tried = (step for step in CASES if type(step).__name__ in used()[1] and not isinstance(step, MADE_OF_VALUES))
    for step in (*tried, *of_definitions(), *of_verbs()):
        if route := step.requests.get(step.type):
            names = {key for key, value in step.parameters().items() if value is not None}
            families = {key if key in route.parameters else key.rstrip("0123456789") for key in names}
            sent.setdefault((route.method, route.path), set()).update(families)
    for route in CONFIG.values():
        sent[route.method, route.path] |= set(of_taking_back())
    return sent


def test_every_parameter_of_a_step_is_sent() -> None:
    sent = sent_by_steps()
    rows = {(route.method, route.path): {*route.parameters, *route.indexed} for route in steps.requests()}
    assert {row: more for row, listed in rows.items() if (more := listed - sent.get(row, set()))} == {}


def test_every_row_is_sent() -> None:
    requests = [(method, path) for method, path, _ in of_calls()] + list(of_steps())
    found = [find(*request) for request in requests]
    sent = {(each.route.method, each.route.path) for each in found if each}
    assert [f"{route.method} {route.path}" for route in ROUTES if (route.method, route.path) not in sent] == []


def test_every_parameter_of_a_look_is_sent() -> None:
    sent: dict[str, set[str]] = {}
    for method, path, names in of_calls():
        if (found := find(method, path)) and method == "GET":
            sent.setdefault(found.route.path, set()).update(names)
    looks = {route.path: set(route.parameters) for route in ROUTES if route.method == "GET"}
    assert {path: more for path, listed in looks.items() if (more := listed - sent.get(path, set()))} == {}


def test_every_call_has_a_row_and_somebody_who_uses_it() -> None:
    calls = {name for name, _ in inspect.getmembers(Recorder, inspect.isfunction) if not name.startswith("_")}
    assert calls - OF_A_CLIENT - used()[0] == set()
    assert [request for *request, _ in of_calls() if find(*request) is None] == []
