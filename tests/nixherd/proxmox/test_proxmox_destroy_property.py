"""Whatever a guest is made of, and whatever happens meanwhile: what goes was announced, and saved or given up by name.

What went is read from the emulator's storages, what was saved from its archives: nothing of it passes through nixherd.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nixherd.base.errors import FleetError
from nixherd.fleet.models import GuestType, Origin, Vm
from nixherd.proxmox.guest import apply, removal, tasks
from nixherd.proxmox.guest.destroy import DestroyGuest
from nixherd.proxmox.guest.identity import mark
from nixherd.proxmox.guest.observe import belongings_of
from nixherd.proxmox.steps import Destroy
from tests.lab.api_node import GIB, Node
from tests.nixherd.proxmox.fleets import DEV, FLEET
from tests.nixherd.proxmox.inprocess import WHO, InProcess, archives, images, state

DNS = Vm("dns", 210, Origin.MANAGED, readonly=False, host_id="dev", type=GuestType.LXC)
BOTH = replace(FLEET, vms={**FLEET.vms, "dns": DNS})
ISO = "local:iso/debian.iso"
DISKS = ("scsi0", "scsi1", "scsi10", "virtio0", "sata1", "ide0", "efidisk0", "tpmstate0", "unused0", "unused3")
MOUNTS = ("mp0", "mp1", "mp7", "unused0", "unused1")


@dataclass
class World:
    """A guest, the volumes that there are, what is asked, and what happens meanwhile, right before which request."""

    vm: Vm
    config: dict[str, Any]
    about: dict[str, Any] = field(default_factory=dict)
    volumes: list[str] = field(default_factory=list)
    discard: str = ""
    backup: bool = True
    meanwhile: str = ""
    moment: tuple[str, str] = ("", "")

    def volume(self, draw: st.DrawFn, owner: int | None = None) -> str:
        """A new volume, of the guest itself unless another owner is said."""
        vmid = owner or self.vm.vmid
        name = f"vm-{vmid}-disk-{len(self.volumes)}"
        linked = f"files:9002/base-9002-disk-0.qcow2/{vmid}/{name}.qcow2"
        self.volumes.append(draw(st.sampled_from((f"nvmeprom:{name}", f"files:{vmid}/{name}.qcow2", linked))))
        return self.volumes[-1]

    def value(self, draw: st.DrawFn, key: str) -> str:
        """What an option says: mostly a disk of the guest's, and all else that people have there."""
        kind = draw(st.sampled_from(("own", "own", "own", "own", "other", "node", "cdrom", "iso", "again")))
        if key.startswith("unused"):
            kind = draw(st.sampled_from(("own", "own", "other", "again")))
        options = draw(st.sampled_from(("", ",backup=0", ",backup=1"))) + ",size=8G"
        if self.vm.type is GuestType.LXC and not key.startswith("unused"):
            options += f",mp=/{key}"
        again = [str(value).split(",")[0] for name, value in self.config.items() if name in (*DISKS, *MOUNTS)]
        match kind:
            case "other":
                text = self.volume(draw, 104)
            case "node":
                return f"/srv/{key},backup=0{',mp=/x' if self.vm.type is GuestType.LXC else ''}"
            case "cdrom" if self.vm.type is GuestType.QEMU:
                return f"{self.volume(draw)},media=cdrom"
            case "iso" if self.vm.type is GuestType.QEMU:
                return f"{ISO},media=cdrom"
            case "again" if again:
                text = draw(st.sampled_from(again))
            case _:
                text = self.volume(draw)
        return text if key.startswith("unused") else text + options


@st.composite
def worlds(draw: st.DrawFn) -> World:
    vm = draw(st.sampled_from((DEV, DEV, DNS)))
    qemu = vm.type is GuestType.QEMU
    name = (
        {"name": "dev", "net0": "virtio=BC:24:11:00:01:10,bridge=vmbr0", "boot": " "} if qemu else {"hostname": "dns"}
    )
    world = World(vm, {**name, "description": mark(BOTH, vm)})
    if not qemu:
        world.config["rootfs"] = f"{world.volume(draw)},size=4G"
    keys = DISKS if qemu else MOUNTS
    for key in draw(st.lists(st.sampled_from(keys), unique=True, max_size=5)):
        world.config[key] = world.value(draw, key)
    if qemu and draw(st.booleans()):
        world.volumes.append("nvmeprom:vm-110-cloudinit")
        world.config |= {
            "ide2": "nvmeprom:vm-110-cloudinit,media=cdrom",
            "bios": draw(st.sampled_from(("ovmf", "seabios"))),
        }
    if qemu and draw(st.integers(0, 4)) == 0:
        pending = [key for key in DISKS if not key.startswith("unused")]
        world.about["pending"] = {
            key: world.value(draw, key) for key in draw(st.lists(st.sampled_from(pending), max_size=2))
        }
        world.about["pending"]["delete"] = draw(st.sampled_from(("", "scsi1", "scsi0,ide0")))
    snapshots = [_snapshot(draw, world, name) for name in draw(st.lists(st.sampled_from(("s1", "s2")), unique=True))]
    if draw(st.booleans()):
        world.about["snapshots"] = dict(snapshots)
    if qemu and draw(st.integers(0, 7)) == 0:
        world.config |= {"lock": "suspended", "vmstate": "nvmeprom:vm-110-state-suspend-2026-01-01"}
        world.volumes.append(world.config["vmstate"])
    if draw(st.booleans()):
        world.volume(draw)  # nothing names it
    _ask(draw, world)
    return world


def _snapshot(draw: st.DrawFn, world: World, name: str) -> tuple[str, Any]:
    """A snapshot with some of the guest's disks, perhaps one that it alone names, perhaps the memory."""
    named = {key: value for key, value in world.config.items() if key in (*DISKS, *MOUNTS) and draw(st.booleans())}
    if draw(st.booleans()):
        named["scsi7" if world.vm.type is GuestType.QEMU else "mp9"] = f"{world.volume(draw)},size=8G,mp=/y"
    if world.vm.type is GuestType.QEMU and draw(st.booleans()):
        world.volumes.append(f"nvmeprom:vm-110-state-{name}")
        named["vmstate"] = world.volumes[-1]
    return name, {"config": named, "vmstate": int("vmstate" in named)}


def _ask(draw: st.DrawFn, world: World) -> None:
    world.discard = draw(st.sampled_from(("all", "all", "all", "but one", "none", "wrong")))
    world.backup = draw(st.sampled_from((True, True, True, False)))
    world.meanwhile = draw(st.sampled_from(("", "", "disk", "snapshot", "archive", "used", "log")))
    world.moment = draw(st.sampled_from((("POST", "/vzdump"), ("GET", "/extractconfig"), ("PUT", "/config"))))


def discarded(world: World, api: InProcess) -> tuple[str, ...]:
    """The names that are given up: all that a backup does not hold, one too few, or one too many."""
    parts = belongings_of(api.client, world.vm, "prom").parts
    needed = tuple(dict.fromkeys(part.name for part in parts if part.unsaved))
    return {"all": needed, "but one": needed[1:], "none": (), "wrong": (*needed, "scsi29")}[world.discard]


def happen(world: World, api: InProcess) -> None:
    """What somebody else does meanwhile, once."""
    path = f"/nodes/prom/{world.vm.type}/{world.vm.vmid}"
    new = {"scsi20": "nvmeprom:1"} if world.vm.type is GuestType.QEMU else {"mp20": "nvmeprom:1,mp=/z"}

    def forget() -> None:
        """A VM's archive lacks a disk; a container's, of which nothing but its configuration can be seen, is gone."""
        for volid, archive in archives(api.node).items():
            if world.vm.type is GuestType.LXC:
                del api.node.emulator.state.storages["local"].volumes[volid]
            elif archive["disks"]:
                archive["disks"].popitem()

    def used() -> None:
        api.node.run("POST", f"{path}/status/start", WHO)
        api.node.run("POST", f"{path}/status/stop", WHO)

    def forgotten() -> None:
        for task in api.node.emulator.tasks.by_upid.values():
            task.log.clear()

    deeds: dict[str, Callable[[], Any]] = {
        "disk": lambda: api.node.call("PUT", f"{path}/config", new),
        "snapshot": lambda: api.node.run("POST", f"{path}/snapshot", snapname="s9"),
        "archive": forget,
        "used": used,
        "log": forgotten,
    }
    todo = [deeds[world.meanwhile]] if world.meanwhile else []

    def hook(method: str, where: str) -> None:
        if todo and method == world.moment[0] and where.endswith(world.moment[1]):
            todo.pop()()

    api.before.append(hook)


def saved_in(api: InProcess, archive: str | None) -> set[str]:
    """The volumes that an archive holds, as the emulator wrote it down."""
    found = archives(api.node).get(archive or "", {})
    return {str(found["config"][name]).split(",")[0] for name in found.get("disks", {})}


def judge(world: World) -> str:
    """How it ended; the assertions are what must hold however that is."""
    vms = {str(world.vm.vmid): {"type": str(world.vm.type), "node": "prom", "config": world.config, **world.about}}
    api = InProcess(Node(state(vms, dict.fromkeys([*world.volumes, ISO], 8 * GIB), pool=(world.vm.vmid,))), BOTH)
    names = discarded(world, api)
    action = DestroyGuest(world.vm.name, world.vm.vmid, backup=world.backup, discard=names)
    happen(world, api)
    ever, snapshots = images(api.node), set[str]()

    def watch(method: str, path: str) -> None:
        """What there was at any moment: what comes in between may be destroyed as well."""
        vm = api.node.emulator.state.vms.get(world.vm.vmid)
        ever.update(images(api.node))
        snapshots.update(vm.snapshots if vm else ())

    api.before.append(watch)
    failure, announced, done = "", None, None
    try:
        announced = action.plan(api.client, BOTH, world.vm)[-1]
        done = action.run(api.client, BOTH, world.vm, timeout=20)[-1]
    except FleetError as error:
        failure = "there is now" if "there is now" in str(error) else type(error).__name__
    if failure:
        assert ever <= images(api.node)
        assert world.vm.vmid in api.node.emulator.state.vms
        return failure
    assert isinstance(announced, Destroy)
    assert isinstance(done, Destroy)
    gone = ever - images(api.node)
    assert world.vm.vmid not in api.node.emulator.state.vms
    assert gone <= announced.belongings.volumes
    assert announced.belongings.volumes - gone == {*done.left, *done.unseen}
    assert all(volume in str(announced) for volume in gone)
    if not world.backup:
        return "without a backup"
    given_up = {part.volume for part in announced.belongings.parts if part.name in names}
    remade = {volume for volume in gone if "cloudinit" in volume}
    assert gone - given_up - remade <= saved_in(api, done.backup)
    assert {f"snapshot:{name}" for name in snapshots} <= set(names)
    return "destroyed"


def test_what_goes_was_announced_and_is_saved_or_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(apply, "PAUSE", 0.01)
    monkeypatch.setattr(removal, "PAUSE", 0.01)
    ends = Counter[str]()

    @settings(max_examples=80, derandomize=True)  # as many as it takes to meet each end
    @given(worlds())
    def holds(world: World) -> None:
        ends[judge(world)] += 1

    holds()
    assert min(ends[end] for end in ("destroyed", "without a backup", "Refused", "Usage", "there is now")) > 2, ends
