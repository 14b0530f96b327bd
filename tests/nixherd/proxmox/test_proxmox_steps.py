"""Each step's request: what it says, that its row lists it, and that nothing is sent without a row."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from nixherd.base.errors import Refused
from nixherd.fleet.models import GuestType, Vm
from nixherd.proxmox import steps
from nixherd.proxmox.calls import Guests
from nixherd.proxmox.guard.policy import Policy
from nixherd.proxmox.guard.routes import ROUTES
from nixherd.proxmox.route import Effect, Route, on_vm
from nixherd.proxmox.steps import Change, Step
from tests.nixherd.proxmox.fleets import DEV, FLEET

OF_A_VM = "local:backup/vzdump-qemu-110-2026_01_01-00_00_00.vma.zst"
OF_A_CONTAINER = "local:backup/vzdump-lxc-110-2026_01_01-00_00_00.tar.zst"
UPID = "UPID:prom:00000001:00000001:00000001:qmx:110:nixherd@pve!lab:"
OF_BOTH: list[Step] = [
    steps.Start("prom", 110),
    steps.Stop("prom", 110),
    steps.Shutdown("prom", 110, 60, force=True),
    steps.Reboot("prom", 110, 60),
    steps.Suspend("prom", 110),
    steps.Resume("prom", 110),
    steps.Configure("prom", 110, (Change("cores", "1", "2", 2), Change("tags", "a", "none", None)), "0" * 40),
    steps.Mark("prom", 110, "nixherd", "nixherd", "0" * 40),
    steps.Resize("prom", 110, "scsi0", 1, 64 << 30, "0" * 40),
    steps.Snapshot("prom", 110, "clean", "text"),
    steps.Rollback("prom", 110, "clean"),
    steps.DeleteSnapshot("prom", 110, "clean"),
    steps.Backup("prom", 110, "local", notes="dev", protected=True),
    steps.Migrate("prom", 110, "prom2", online=True, storage="tank"),
    steps.Destroy("prom", 110, purge=True),
]
OF_VMS: list[Step] = [
    steps.Clone("prom", 110, "dev", 9002, "prom", "notes", "tank", "pool"),
    steps.Clone("prom", 110, "dev", 9002, "prom2", "notes"),
    steps.Create("prom", 110, "dev", {"name": "dev", "scsi0": "tank:64"}),
    steps.Restore("prom", 110, "dev", OF_A_VM, "tank", overwrite=True),
    steps.MakeTemplate("prom", 110),
    steps.Migrate("prom", 110, "prom2", online=True, local_disks=True),
    steps.AddDisk("prom", 110, "scsi1", "tank", 10 << 30, "ssd=1", "0" * 40),
    steps.MoveDisk("prom", 110, "scsi0", "tank", digest="0" * 40),
    steps.CloudInit("prom", 110, (Change("user", "none", "ops", "ops"),), "0" * 40),
    steps.Regenerate("prom", 110),
    steps.Suspend("prom", 110, to_disk=True),
    steps.Snapshot("prom", 110, "clean", with_memory=True),
]
OF_CONTAINERS: list[Step] = [
    steps.Create("prom", 110, "dev", {"hostname": "dev", "ostemplate": "local:vztmpl/debian.tar.zst", "swap": 0}),
    steps.Restore("prom", 110, "dev", OF_A_CONTAINER, "tank", overwrite=True),
]
CASES = [
    *OF_BOTH,
    *OF_VMS,
    *(replace(step, type=GuestType.LXC) for step in (*OF_BOTH, *OF_CONTAINERS)),
]


class Recorded:
    """The requests that a step has sent, judged by a policy as the session judges them."""

    def __init__(self, vm: Vm) -> None:
        self.policy = Policy.from_fleet(replace(FLEET, vms={vm.name: vm}))
        self.sent: list[tuple[str, str]] = []

    def change(self, route: Route, names: Mapping[str, object], values: Mapping[str, object], **_: bool) -> None:
        path = "/" + "/".join(map(str, route.filled(names)))
        given = {key: value for key, value in values.items() if value is not None}
        self.policy.check(route.method, path, given)
        self.sent.append((route.method, path))


def begun(step: Step, vm: Vm) -> list[tuple[str, str]]:
    client = Recorded(replace(vm, type=step.type))
    step.begin(cast(Guests, client))
    return client.sent


def name(step: object) -> str:
    return f"{type(step).__name__}-{step.type}" if isinstance(step, Step) else str(step)


@pytest.mark.parametrize("step", CASES, ids=name)
def test_what_a_step_sends_passes_by_its_own_row_and_for_a_changeable_guest_alone(step: Step) -> None:
    sent = begun(step, DEV)
    assert sent
    for vm in (replace(DEV, readonly=True), replace(DEV, name="other", vmid=111)):
        with pytest.raises(Refused):
            begun(step, vm)


def test_every_step_that_has_a_request_is_tried_above() -> None:
    declared = {each for each in vars(steps).values() if isinstance(each, type) and issubclass(each, Step)}
    assert {each for each in declared if each.requests} == {type(step) for step in CASES}


@dataclass(frozen=True, slots=True)
class Wipe(Step):
    """A step of nobody's: its row is in no module of the steps."""

    requests = on_vm("POST", "/wipe", Effect.DESTROY)


def test_a_row_that_is_declared_elsewhere_is_in_no_table_and_what_it_would_send_is_refused() -> None:
    assert not any(route.path.endswith("/wipe") for route in ROUTES)
    with pytest.raises(Refused, match="nixherd never sends this request"):
        Wipe("prom", 110).begin(cast(Guests, Recorded(DEV)))


def test_a_step_without_a_request_for_that_kind_of_guest_sends_nothing() -> None:
    client = Recorded(DEV)
    with pytest.raises(TypeError, match="MoveDisk is not a request that can be sent to ct 110"):
        steps.MoveDisk("prom", 110, "rootfs", "tank", type=GuestType.LXC).begin(cast(Guests, client))
    assert client.sent == []


def test_who_waits_for_another_run_sends_nothing() -> None:
    upid: Any = UPID
    nobody = cast(Guests, SimpleNamespace())
    for step in (steps.AwaitClone("prom", 110, upid), steps.AwaitReboot("prom", 110, upid)):
        assert str(step.begin(nobody)) == UPID
