"""The plan: which steps, in which words, and that carrying them out leaves none."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nixherd.base.errors import FleetError, Refused
from nixherd.base.names import format_size, parse_size
from nixherd.fleet.models import GuestType, Settings, Vm
from nixherd.proxmox.answers import Upid
from nixherd.proxmox.config import VmConfig, encode_ssh_keys
from nixherd.proxmox.guest.identity import ActualVm, is_ours, mark
from nixherd.proxmox.guest.plan import Desired, cloned, plan_vm, require_changeable
from nixherd.proxmox.steps import (
    AwaitClone,
    Cannot,
    Clone,
    CloudInit,
    Configure,
    Reboot,
    Resize,
    Row,
    Start,
    Step,
    rows,
    sent,
)
from tests.nixherd.proxmox.fleets import DEV, DOC1, FLEET, HOST, KEPT, KEY, template

UPID = Upid.parse("UPID:prom:0002A2CB:00052A4E:6B03F0ED:qmclone:9002:nixherd@pve!lab:")


def plan(actual: ActualVm | None, vm: Vm = DEV, source: VmConfig | None = None) -> tuple[Step, ...]:
    return plan_vm(Desired(FLEET, vm, HOST, source or template()), actual)


def carry_out(actual: ActualVm | None, steps: tuple[Step, ...], source: VmConfig) -> ActualVm | None:
    """What a server makes of the steps, in few words."""
    for step in steps:
        if isinstance(step, Clone):
            assert actual is None
            actual = cloned(step, source)
            continue
        assert actual is not None
        values: dict[str, Any] = dict(actual.config.values)
        match step:
            case AwaitClone():
                actual = replace(actual, clone_task=None)
                name, description = DEV.name, mark(FLEET, DEV)
                gone = {"template", "lock", "digest"}
                values = {key: value for key, value in source.values.items() if key not in gone}
                values |= {"name": name, "description": description}
            case Configure() | CloudInit():
                for key, value in sent(step.changes).items():
                    values[key] = int(value) if isinstance(value, bool) else value
            case Resize():
                disk, _, _ = str(values[step.disk]).rpartition("size=")
                values[step.disk] = f"{disk}size={format_size(step.after)}"
            case Start():
                actual = replace(actual, running=True)
        actual = replace(actual, config=VmConfig(values))
    return actual


def existing(vm: Vm = DEV, *, running: bool = True, **values: Any) -> ActualVm:
    """The VM as declared, but for `values`."""
    source = template()
    done = carry_out(None, plan(None, replace(vm, readonly=False), source), source)
    assert done is not None
    merged = {**done.config.values, **values}
    return ActualVm(VmConfig({key: value for key, value in merged.items() if value is not None}), running)


def test_a_machine_out_of_nothing() -> None:
    assert [f"{step.row}: {step}" for step in plan(None)] == [
        "clone: clone template 9002 to vm 110 (dev) on nvmeprom",
        "configure: set cores 2 → 4, memory 2048 → 8192 MiB, onboot on → off, protection on → off",
        "resize: grow scsi0 4G → 64G",
        "cloud-init: set cloud-init user none → abl030, keys 0 → 1 of dev, network none → ip=dhcp, upgrade on → off",
        "start: start vm 110",
    ]


def test_the_mark_comes_with_the_clone() -> None:
    [clone] = rows(plan(None), Row.CLONE)
    assert isinstance(clone, Clone)
    assert (clone.description, clone.name) == ("nixherd fleet=homelab vmid=110", "dev")


def test_what_is_as_declared_needs_nothing() -> None:
    assert plan(existing()) == ()
    assert plan(existing(KEPT), KEPT) == ()


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"cores": 2}, "set cores 2 → 4 (from its next start on)"),
        ({"sockets": 2}, "set sockets 2 → 1 (from its next start on)"),
        ({"memory": "4096"}, "set memory 4096 → 8192 MiB (from its next start on)"),
        ({"agent": "0,fstrim_cloned_disks=1"}, "set agent off → on (from its next start on)"),
        ({"ciuser": "root"}, "set cloud-init user root → abl030"),
        ({"sshkeys": encode_ssh_keys([KEY, KEY])}, "set cloud-init keys 2 → 1 of dev"),
        ({"ipconfig0": "ip=10.0.0.5/24"}, "set cloud-init network ip=10.0.0.5/24 → ip=dhcp"),
        ({"ciupgrade": None}, "set cloud-init upgrade on → off"),
        ({"ciupgrade": 1}, "set cloud-init upgrade on → off"),
        ({"scsi0": "nvmeprom:vm-110-disk-0,size=63G"}, "grow scsi0 63G → 64G"),
    ],
)
def test_what_differs_is_set(values: dict[str, Any], line: str) -> None:
    steps = plan(existing(**values))
    assert [str(step) for step in steps if not isinstance(step, Reboot)] == [line]
    # what a running machine takes up later is said to need a reboot, which is a step of its own
    waits = line.endswith("(from its next start on)")
    assert [str(step) for step in steps if step.interrupts] == (
        [f"reboot vm 110 so that {line.split()[1]} take effect"] if waits else []
    )


@pytest.mark.parametrize(
    "values",
    [
        {"memory": "current=8192"},
        {"agent": "enabled=1,type=virtio"},
        {"sshkeys": encode_ssh_keys([KEY]).removesuffix("%0A")},
        {"description": f"people's words\n{mark(FLEET, DEV)}\nmore of them"},
        {"tags": "Zoo;debian"},
        {"net1": "virtio=BC:24:11:00:00:01,bridge=vmbr1", "nameserver": "192.0.2.1", "onboot": 0},
    ],
)
def test_what_is_not_declared_is_left_alone(values: dict[str, Any]) -> None:
    assert plan(existing(**values)) == ()


def test_declared_tags_join_those_that_are_there() -> None:
    [step] = plan(existing(tags="Zoo;debian"), replace(DEV, tags=("web", "zoo")))
    assert isinstance(step, Configure)
    assert sent(step.changes) == {"tags": "debian;web;zoo"}


@pytest.mark.parametrize(("declared", "expected"), [(None, 0), (False, 0), (True, 1)])
def test_protection_of_the_template_stays_only_where_declared(declared: bool | None, expected: int) -> None:
    vm = replace(DEV, settings=Settings(protection=declared))
    source = template()
    done = carry_out(None, plan(None, vm), source)
    assert done is not None
    assert done.config.flag("protection") == bool(expected)


def test_protection_that_someone_else_set_stays() -> None:
    assert plan(existing(protection=1), source=template(protection=0, onboot=0)) == ()


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"name": "web"}, "its name is web, not dev"),
        ({"name": None}, "its name is empty, not dev"),
        ({"description": ""}, "lack the line `nixherd fleet=homelab vmid=110`"),
        ({"description": "nixherd fleet=homelab vmid=111"}, "lack the line"),
        ({"description": "nixherd fleet=other vmid=110"}, "lack the line"),
        ({"description": "see nixherd fleet=homelab vmid=1101"}, "lack the line"),
        ({"template": 1}, "it is a template"),
    ],
)
def test_what_is_not_ours_is_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(Refused, match="vm 110 on prom") as refusal:
        plan(existing(**values))
    assert words in str(refusal.value)
    assert "\n" not in str(refusal.value)
    # one that is never changed needs no mark; another machine is another machine
    kept = replace(DEV, readonly=True)
    if "lack" in words:
        assert plan(existing(**values), kept) == ()
        return
    with pytest.raises(Refused, match="vm 110 on prom"):
        plan(existing(**values), kept)


def test_our_clone_that_is_under_way_is_waited_for() -> None:
    actual = ActualVm(VmConfig({"lock": "clone", "description": " qmclone temporary file"}), False, UPID)
    steps = plan(actual)
    assert steps[0] == AwaitClone("prom", 110, UPID)
    assert steps[1:] == plan(None)[1:]
    assert plan(carry_out(actual, steps, template())) == ()


def test_a_lock_on_what_is_ours_does_not_hide_it() -> None:
    assert [step.row for step in plan(existing(lock="backup", cores=1))] == [Row.CONFIGURE, None]


def test_a_clone_with_our_mark_is_not_whole_while_it_is_locked() -> None:
    half = existing(lock="clone", scsi0=None)
    with pytest.raises(FleetError, match="unfinished clone and no task of ours is at work"):
        plan(half)
    assert plan(replace(half, clone_task=UPID))[0] == AwaitClone("prom", 110, UPID)


def test_disks_are_never_shrunk() -> None:
    [cannot] = plan(existing(scsi0="nvmeprom:vm-110-disk-0,size=65G", digest="d"))
    assert isinstance(cannot, Cannot)
    assert str(cannot) == (
        "vm 110 (dev): scsi0 has 65G, vms/definitions.nix wants 64G; disks are never shrunk, correct managed.dev.disk"
    )
    steps = plan(None, source=template(scsi0="nvmeprom:base-9002-disk-0,size=65G"))
    assert ["its template's scsi0 has 65G" in str(step) for step in steps if isinstance(step, Cannot)] == [True]


def test_the_disk_is_the_one_that_boots() -> None:
    two: dict[str, Any] = {"virtio1": "nvmeprom:vm-110-disk-1,size=1G", "boot": "order=net0;ide2;virtio1;scsi0"}
    assert [str(step) for step in plan(existing(**two))] == ["grow virtio1 1G → 64G"]
    legacy: dict[str, Any] = {"virtio1": "nvmeprom:vm-110-disk-1,size=1G", "boot": "c", "bootdisk": "virtio1"}
    assert [str(step) for step in plan(existing(**legacy))] == ["grow virtio1 1G → 64G"]
    with pytest.raises(Refused, match="no boot disk"):
        plan(existing(**{**two, "boot": "order=net0"}))


def test_a_readonly_machine_is_not_touched() -> None:
    refused = "vm 111 \\(kept\\) is readonly in vms/definitions.nix; refusing to "
    with pytest.raises(Refused, match=refused + "clone template 9002"):
        require_changeable(KEPT, plan(None, KEPT))
    with pytest.raises(Refused, match=refused + "set cores 1 → 2"):
        require_changeable(KEPT, plan(existing(KEPT, cores=1), KEPT))
    with pytest.raises(Refused, match=refused + "start vm 111"):
        require_changeable(KEPT, plan(existing(KEPT, running=False), KEPT))
    require_changeable(KEPT, plan(existing(KEPT), KEPT))


def test_only_managed_machines_are_provisioned() -> None:
    with pytest.raises(Refused, match=r"imported\.doc1 .* documented only"):
        plan(existing(), DOC1)
    with pytest.raises(FleetError, match=r"managed\.dev: nothing to make the container from; declare `archive`"):
        plan(None, replace(DEV, type=GuestType.LXC))


def test_nothing_to_clone_from() -> None:
    with pytest.raises(FleetError, match="template 9002 does not exist on prom"):
        plan_vm(Desired(FLEET, DEV, HOST), None)
    with pytest.raises(FleetError, match="declare `template`"):
        plan_vm(Desired(replace(FLEET, template=None), DEV, HOST), None)


_optional_flag = st.sampled_from([None, 0, 1])
_templates = st.fixed_dictionaries(
    {
        "memory": st.sampled_from([None, "512", "8192", "current=1024"]),
        "cores": st.sampled_from([None, 1, 4]),
        "sockets": st.sampled_from([None, 1, 2]),
        "agent": st.sampled_from([None, "0", "1", "enabled=0,type=isa"]),
        "scsi0": st.sampled_from(["s:base-9002-disk-0,size=2252M", "s:base-9002-disk-0,size=8G,ssd=1"]).map(
            lambda text: ",".join(sorted(text.split(","), key=lambda item: item.startswith("size=")))
        ),
        "protection": _optional_flag,
        "onboot": _optional_flag,
        "tags": st.sampled_from([None, "a", "B;a"]),
        "ciuser": st.sampled_from([None, "debian", "abl030"]),
        "sshkeys": st.sampled_from([None, encode_ssh_keys([KEY]), "not%20a%20key"]),
        "ipconfig0": st.sampled_from([None, "ip=dhcp", "ip=dhcp,ip6=auto"]),
        "ciupgrade": st.sampled_from([None, 0, 1]),
        "description": st.sampled_from([None, "", "of\nthe template"]),
    }
)
_vms = st.builds(
    replace,
    st.just(DEV),
    cores=st.sampled_from([None, 1, 4]),
    memory=st.sampled_from([None, 512, 8192]),
    disk=st.sampled_from([None, parse_size("8G"), parse_size("64G"), parse_size("2252.5M") // 1024 * 1024 * 8]),
    tags=st.sampled_from([(), ("web",), ("Web", "a")]),
    settings=st.sampled_from([Settings(), Settings(protection=True), Settings(onboot=True, protection=False)]),
)


@given(source=_templates.map(lambda values: template(**values)), vm=_vms, stop_after=st.integers(0, 5))
def test_observing_after_applying_gives_no_step(source: VmConfig, vm: Vm, stop_after: int) -> None:
    """Also when it was interrupted after any step."""
    steps = plan(None, vm, source)
    half = carry_out(None, steps[:stop_after], source)
    rest = plan(half, vm, source)
    assert [str(step) for step in rest] == [str(step) for step in steps[stop_after:]]
    done = carry_out(half, rest, source)
    assert done is not None
    assert plan(done, vm, source) == ()
    assert is_ours(FLEET, vm, done.config)
    assert plan(done, replace(vm, readonly=True), source) == ()
