"""What is declared is compared and set; what the server fills in by itself is not a difference."""

from dataclasses import replace
from typing import Any

import pytest

from nixherd.base.errors import FleetError
from nixherd.base.names import parse_size
from nixherd.fleet.models import CloudInitSettings, ContainerSettings, Device, GuestType, Origin, Settings, Vm
from nixherd.proxmox.answers import Pending
from nixherd.proxmox.config import VmConfig, encode_ssh_keys
from nixherd.proxmox.guest.desired import empty_vm
from nixherd.proxmox.guest.identity import ActualVm, mark, marked
from nixherd.proxmox.guest.plan import Desired, drift, plan_vm
from nixherd.proxmox.steps import AddDisk, Cannot, Configure, Create, Step, doable
from nixherd.proxmox.steps import sent as sent_by
from tests.nixherd.proxmox.fleets import DEV, DOC1, FLEET, HOST, KEY, template

MAC = "BC:24:11:AA:BB:CC"
CONFIG: dict[str, Any] = {
    "name": "dev",
    "description": mark(FLEET, DEV) + "\n",
    "cores": 4,
    "sockets": 1,
    "memory": "8192",
    "agent": "1",
    "boot": "order=scsi0;net0",
    "scsi0": "nvmeprom:vm-110-disk-0,size=64G",
    "net0": f"virtio={MAC},bridge=vmbr0,firewall=1",
    # what the server adds
    "smbios1": "uuid=4a3c1a6c-1df5-4b5e-9c53-5b6f1b3a7a11",
    "vmgenid": "4a3c1a6c-1df5-4b5e-9c53-5b6f1b3a7a12",
    "meta": "creation-qemu=10.0.2,ctime=1764000000",
    "scsihw": "virtio-scsi-pci",
    "digest": "d" * 40,
}


def plan(settings: Settings, *, running: bool = True, vm: Vm = DEV, **values: Any) -> tuple[Step, ...]:
    config = {key: value for key, value in {**CONFIG, **values}.items() if value is not None}
    actual = ActualVm(VmConfig(config), running, node="prom")
    steps = plan_vm(Desired(FLEET, replace(vm, settings=settings), HOST, template(protection=0, onboot=0)), actual)
    return tuple(step for step in steps if str(step) != "start vm 110")


def lines(settings: Settings, **values: Any) -> list[str]:
    return [str(step) for step in plan(settings, **values)]


def sent(settings: Settings, **values: Any) -> dict[str, object]:
    [step] = [step for step in plan(settings, **values) if isinstance(step, Configure)]
    return sent_by(step.changes)


def test_what_the_server_fills_in_is_no_difference() -> None:
    assert lines(Settings()) == []


@pytest.mark.parametrize(
    ("settings", "values"),
    [
        (Settings(cpu="host"), {"cpu": "cputype=host"}),
        (Settings(machine="q35"), {"machine": "q35"}),
        (Settings(boot=("scsi0", "net0")), {}),
        (Settings(startup="order=2,up=30"), {"startup": "2,up=30"}),
        (Settings(onboot=True, protection=True), {"onboot": 1, "protection": "1"}),
        (Settings(networks=(Device("net0", {"bridge": "vmbr0", "model": "virtio"}),)), {}),
        (Settings(networks=(Device("net0", {"macaddr": MAC.lower(), "firewall": "1"}),)), {}),
        (
            Settings(pci=(Device("hostpci0", {"mapping": "igpu", "pcie": "1"}),)),
            {"hostpci0": "mapping=igpu,pcie=1,rombar=0"},
        ),
        (Settings(balloon=0), {"balloon": 0}),
        (Settings(description="x\ny"), {"description": f"x\n{mark(FLEET, DEV)}\ny\n"}),
        (Settings(disks=(Device("scsi1", {}, parse_size("10G")),)), {"scsi1": "tank:vm-110-disk-1,size=10G"}),
    ],
)
def test_the_same_in_other_words_is_no_difference(settings: Settings, values: dict[str, Any]) -> None:
    assert lines(settings, **values) == []


@pytest.mark.parametrize(
    ("settings", "line", "values"),
    [
        (Settings(sockets=2), "set sockets 1 → 2", {"sockets": 2}),
        (Settings(balloon=2048), "set balloon as memory → 2048 MiB", {"balloon": 2048}),
        (Settings(cpu="host"), "set cpu default → host", {"cpu": "host"}),
        (Settings(machine="q35"), "set machine default → q35", {"machine": "q35"}),
        (Settings(boot=("net0",)), "set boot scsi0;net0 → net0", {"boot": "order=net0"}),
        (Settings(agent=False), "set agent on → off", {"agent": "enabled=0"}),
        (Settings(startup="order=2"), "set startup any → order=2", {"startup": "order=2"}),
        (Settings(description="a\nb"), "set description none → “a…”", {"description": marked(FLEET, DEV, "a\nb")}),
        (
            Settings(networks=(Device("net0", {"bridge": "vmbr1", "tag": "20"}),)),
            "set net0 bridge=vmbr0,tag=unset → bridge=vmbr1,tag=20",
            {"net0": f"virtio={MAC},bridge=vmbr1,firewall=1,tag=20"},
        ),
        (
            Settings(networks=(Device("net1", {"bridge": "vmbr1"}),)),
            "set net1 none → model=virtio,bridge=vmbr1",
            {"net1": "model=virtio,bridge=vmbr1"},
        ),
        (
            Settings(pci=(Device("hostpci0", {"mapping": "igpu", "pcie": "1"}),)),
            "set hostpci0 none → mapping=igpu,pcie=1",
            {"hostpci0": "mapping=igpu,pcie=1"},
        ),
    ],
)
def test_what_is_declared_otherwise_is_set(settings: Settings, line: str, values: dict[str, object]) -> None:
    assert lines(settings, running=False) == [line]
    assert sent(settings, running=False) == values


def test_a_raw_device_gives_way_to_the_mapping() -> None:
    settings = Settings(pci=(Device("hostpci0", {"mapping": "igpu"}),))
    assert sent(settings, running=False, hostpci0="0000:01:00.0,pcie=1") == {"hostpci0": "pcie=1,mapping=igpu"}


def test_a_running_machine_is_told_what_waits_and_nothing_interrupts_it_by_itself() -> None:
    settings = Settings(cpu="host", onboot=True, networks=(Device("net0", {"tag": "7"}),))
    configure, reboot = plan(settings)
    assert isinstance(configure, Configure)
    assert configure.waits == ("cpu",)
    assert (str(reboot), reboot.interrupts) == ("reboot vm 110 so that cpu take effect", True)
    assert not configure.interrupts


def test_what_waits_already_still_waits() -> None:
    actual = ActualVm(VmConfig(CONFIG), True, node="prom", pending=(Pending("memory", "4096", "8192"),))
    steps = plan_vm(Desired(FLEET, DEV, HOST, template(protection=0, onboot=0)), actual)
    assert [str(step) for step in steps] == ["reboot vm 110 so that memory take effect"]


def test_further_disks_are_made_and_grown_and_never_shrunk() -> None:
    disks = (
        Device("scsi1", {"ssd": "1"}, parse_size("10G")),
        Device("scsi2", {}, parse_size("20G")),
        Device("scsi3", {}, parse_size("5G")),
    )
    there: dict[str, Any] = {"scsi2": "tank:vm-110-disk-2,size=10G", "scsi3": "tank:vm-110-disk-3,size=6G"}
    add, grow, cannot = plan(Settings(disks=disks), **there)
    assert add == AddDisk("prom", 110, "scsi1", "nvmeprom", parse_size("10G"), "ssd=1", "d" * 40)
    assert str(grow) == "grow scsi2 10G → 20G"
    assert isinstance(cannot, Cannot)
    assert "scsi3 has 6G" in str(cannot)
    assert "managed.dev.disks.scsi3.size" in str(cannot)


def test_what_cannot_be_done_in_passing_says_why() -> None:
    cannot = plan(Settings(bios="ovmf"), vm=replace(DEV, storage="tank", node="prom2"))
    assert doable(cannot) == ()
    assert [str(step) for step in cannot] == [
        "node: it runs on prom, managed.dev.node says prom2; `nixherd vm migrate dev prom2` moves it, or "
        "correct the "
        "definitions",
        "bios: vm 110 (dev) has seabios, managed.dev.bios says ovmf; its boot loader would not start; clone a template "
        "with that firmware and install anew, or correct the definitions",
        "storage: scsi0 of vm 110 (dev) is on nvmeprom, managed.dev.storage says tank; move it "
        "(operations.proxmox.move_disk disk=scsi0 storage=tank) or correct that",
    ]


def test_cloud_init_says_what_is_declared_where_there_is_a_drive() -> None:
    declared = CloudInitSettings(user="ops", keys=(KEY,), addresses={"ipconfig0": "ip=10.0.0.5/24"}, upgrade=True)
    declared = replace(declared, nameserver="10.0.0.1", search_domain="lan")
    drive: dict[str, Any] = {"ide2": "nvmeprom:vm-110-cloudinit,media=cdrom", "ciupgrade": 0}
    [step] = plan(Settings(cloud_init=declared), **drive)
    assert str(step) == (
        "set cloud-init user none → ops, keys 0 → 1 of dev, network none → ip=10.0.0.5/24, nameserver none → 10.0.0.1, "
        "search domain none → lan, upgrade off → on"
    )
    assert step.options == {"ciuser", "sshkeys", "ipconfig0", "nameserver", "searchdomain", "ciupgrade"}
    assert plan(Settings(cloud_init=declared)) == ()


# Containers

CT = Vm("dns", 210, Origin.MANAGED, readonly=False, type=GuestType.LXC, host_id="dev", cores=2, memory=1024)
CT = replace(CT, disk=parse_size("8G"), tags=("Net",))
ARCHIVE = "local:vztmpl/debian-12-standard_12.7-1_amd64.tar.zst"
CT_CONFIG = {
    "hostname": "dns",
    "description": mark(FLEET, CT),
    "cores": 2,
    "memory": 1024,
    "swap": 512,
    "arch": "amd64",
    "ostype": "debian",
    "rootfs": "nvmeprom:vm-210-disk-0,size=8G",
    "net0": f"name=eth0,bridge=vmbr0,hwaddr={MAC},ip=dhcp,type=veth",
    "tags": "net",
    "unprivileged": 1,
}


def container(settings: Settings = Settings(), **values: Any) -> list[str]:  # noqa: B008
    config = {key: value for key, value in {**CT_CONFIG, **values}.items() if value is not None}
    desired = Desired(FLEET, replace(CT, settings=settings), HOST)
    return [str(step) for step in plan_vm(desired, ActualVm(VmConfig(config), True, node="prom"))]


def test_a_container_comes_out_of_its_archive() -> None:
    settings = Settings(container=ContainerSettings(archive=ARCHIVE, swap=0), onboot=True)
    [step] = plan_vm(Desired(FLEET, replace(CT, settings=settings), HOST), None)
    assert isinstance(step, Create)
    assert str(step) == f"create ct 210 (dns) out of {ARCHIVE}"
    assert step.values == {
        "ostemplate": ARCHIVE,
        "hostname": "dns",
        "description": mark(FLEET, CT),
        "rootfs": "nvmeprom:8",
        "cores": 2,
        "memory": 1024,
        "swap": 0,
        "unprivileged": True,
        "ssh-public-keys": KEY,
        "tags": "net",
        "onboot": True,
        "net0": "name=eth0,bridge=vmbr0,ip=dhcp",
    }


def test_a_container_as_declared_needs_nothing() -> None:
    assert container() == []
    assert container(Settings(networks=(Device("net0", {"bridge": "vmbr0", "ip": "dhcp"}),))) == []


@pytest.mark.parametrize(
    ("settings", "values", "line"),
    [
        (Settings(), {"cores": 1}, "set cores 1 → 2"),
        (Settings(), {"memory": None}, "set memory 512 → 1024 MiB"),
        (Settings(container=ContainerSettings(swap=0)), {}, "set swap 512 → 0 MiB"),
        (Settings(container=ContainerSettings(features="nesting=1")), {}, "set features none → nesting=1"),
        (Settings(startup="order=1"), {}, "set startup any → order=1"),
        (
            Settings(networks=(Device("net0", {"bridge": "vmbr1", "ip": "dhcp"}),)),
            {},
            "set net0 name=eth0,bridge=vmbr0,ip=dhcp → name=eth0,bridge=vmbr1,ip=dhcp",
        ),
        (Settings(), {"rootfs": "nvmeprom:vm-210-disk-0,size=4G"}, "grow rootfs 4G → 8G"),
    ],
)
def test_what_differs_of_a_container_is_set(settings: Settings, values: dict[str, Any], line: str) -> None:
    assert container(settings, **values) == [line]


# Drift


def test_documented_guests_show_drift() -> None:
    specs = {"cores": 8, "memory": 32768, "disk": "250G", "storage": "nvmeprom", "mtu": 1400}
    vm = replace(DOC1, specs=specs, status="running")
    config = {"name": "doc1", "cores": 6, "memory": "32768", "scsi0": "tank:vm-104-disk-0,size=300G"}
    found = drift(vm, "prom", ActualVm(VmConfig(config), False, node="prom"))
    assert [str(step) for step in found] == [
        "cores: documented 8, is 6",
        "disk: documented 250G, is 300G",
        "storage: documented nvmeprom, is tank",
        "status: documented running, is stopped",
    ]
    assert doable(found) == ()


@pytest.mark.parametrize("specs", [None, "many", {"cores": "8", "disk": "passthrough", "memory": True}, {"disk": 3}])
def test_what_people_write_freely_is_no_drift(specs: object) -> None:
    vm = replace(DOC1, specs=specs, status=7)
    assert drift(vm, "prom", ActualVm(VmConfig({"cores": 6, "scsi0": "a:vm-104-disk-0,size=1G"}), True)) == ()


def test_a_documented_guest_that_is_gone_is_said() -> None:
    assert [str(step) for step in drift(DOC1, "prom", None)] == [
        "doc1: documented as imported.doc1, not there; correct that"
    ]


# From the definition alone


def test_an_empty_vm_has_what_its_definition_says() -> None:
    settings = Settings(
        cpu="host",
        machine="q35",
        bios="ovmf",
        pool="ours",
        disks=(Device("scsi1", {"ssd": "1"}, parse_size("10G"), "tank"),),
        networks=(Device("net1", {"bridge": "vmbr1"}),),
    )
    step = empty_vm(FLEET, replace(DEV, settings=settings, tags=("Web",)), HOST)
    assert str(step) == "create vm 110 (dev) from its definition"
    assert step.values == {
        "name": "dev",
        "description": mark(FLEET, DEV),
        "ostype": "l26",
        "scsihw": "virtio-scsi-single",
        "scsi0": "nvmeprom:64",
        "ide2": "nvmeprom:cloudinit",
        "boot": "order=scsi0;net0",
        "pool": "ours",
        "bios": "ovmf",
        "efidisk0": "nvmeprom:1,efitype=4m,pre-enrolled-keys=0",
        "scsi1": "tank:10,ssd=1",
        "cores": 4,
        "memory": "8192",
        "agent": "enabled=1",
        "cpu": "host",
        "machine": "q35",
        "tags": "web",
        "net0": "model=virtio,bridge=vmbr0",
        "net1": "model=virtio,bridge=vmbr1",
        "ciuser": "abl030",
        "sshkeys": encode_ssh_keys([KEY]),
        "ipconfig0": "ip=dhcp",
        "ciupgrade": False,
    }


def test_an_empty_vm_needs_a_size() -> None:
    with pytest.raises(FleetError, match=r"managed\.dev in vms/definitions\.nix declares no disk"):
        empty_vm(FLEET, replace(DEV, disk=None), HOST)
