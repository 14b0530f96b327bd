"""What is found before anything is changed."""

from dataclasses import replace
from typing import Any

import pytest

from nixherd.base.errors import Refused
from nixherd.base.names import parse_size
from nixherd.fleet.models import Device, Fleet, Settings, Vm
from nixherd.proxmox.answers import Permissions, Storage, Version
from nixherd.proxmox.guest.identity import ActualVm
from nixherd.proxmox.guest.plan import Desired, cloned, plan_vm
from nixherd.proxmox.preflight import BootLoader, HostFacts, Survey, preflight
from nixherd.proxmox.steps import Clone
from tests.nixherd.proxmox.fleets import DEV as POOLED
from tests.nixherd.proxmox.fleets import FLEET, HOST, template

DEV = replace(POOLED, settings=Settings())
FACTS = HostFacts("dev", BootLoader.SYSTEMD_BOOT, ("/dev/sda",), guest_agent=True, ssh=True)
GIB = 1 << 30
ALL = {
    "/": {"VM.Audit": True},
    "/vms": dict.fromkeys(
        (
            *("VM.Audit", "VM.Clone", "VM.Allocate", "VM.PowerMgmt", "VM.GuestAgent.Unrestricted", "VM.Config.CPU"),
            *("VM.Config.Memory", "VM.Config.Options", "VM.Config.Disk", "VM.Config.Cloudinit"),
        ),
        True,
    ),
    "/storage/nvmeprom": {"Datastore.AllocateSpace": True},
    "/sdn/zones/localnetwork": {"SDN.Use": True},
}
SEEN = Survey(
    version=Version("9.2.11", "9.2"),
    nodes=("prom",),
    permissions=Permissions(ALL),
    template=template(),
    actual=None,
    storages={"nvmeprom": Storage("nvmeprom", True, 900 * GIB, 0, 900 * GIB, ("images", "rootdir"))},
)


def findings(seen: Survey = SEEN, facts: HostFacts = FACTS, vm: Vm = DEV, fleet: Fleet = FLEET) -> tuple[str, ...]:
    return preflight(fleet, vm, HOST, facts, seen)


def with_template(**values: Any) -> Survey:
    return replace(SEEN, template=template(**values))


def without(path: str, privilege: str) -> Survey:
    kept = {
        where: {p: v for p, v in granted.items() if (where, p) != (path, privilege)} for where, granted in ALL.items()
    }
    return replace(SEEN, permissions=Permissions(kept))


def test_nothing_to_say() -> None:
    assert findings() == ()


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        (
            replace(SEEN, nodes=("prox1", "prox2")),
            "node prom does not exist; correct `node` (the cluster has: prox1, prox2)",
        ),
        (replace(SEEN, template=None), "template 9002 does not exist on prom; make it, or correct"),
        (with_template(template=None), "vm 9002 on prom is not a template; convert it"),
        (with_template(scsi0=None), "template 9002 on prom boots from no disk"),
        (with_template(scsi0="nvmeprom:base-9002-disk-0"), "boots from no disk"),
        (with_template(agent="0"), "has no guest agent"),
        (with_template(ide2=None), "no cloud-init drive"),
        (with_template(ide2="none,media=cdrom"), "no cloud-init drive"),
        (with_template(net0=None), "no net0 on a bridge"),
        (with_template(bios=None), "installs systemd-boot, which needs bios ovmf, but template 9002 has seabios"),
        (
            with_template(efidisk0="nvmeprom:base-9002-disk-1,efitype=4m,pre-enrolled-keys=1,size=4M"),
            "template 9002 has Secure Boot's keys (efidisk0: pre-enrolled-keys=1)",
        ),
        (with_template(scsi0="nvmeprom:base-9002-disk-0,size=80G"), "disks are never shrunk"),
        (
            with_template(boot="order=virtio0", scsi0=None, virtio0="nvmeprom:base-9002-disk-0,size=4G"),
            "disko formats /dev/sda, but the disk virtio0 of vm 110 (dev) is /dev/vda in the guest",
        ),
        (replace(SEEN, storages={"nvmeprom": None}), "prom has no storage nvmeprom; correct managed.dev.storage"),
        (replace(SEEN, storages={"nvmeprom": Storage("nvmeprom", False, 0, 0, 0, ("images",))}), "is not active"),
        (
            replace(SEEN, storages={"nvmeprom": Storage("nvmeprom", True, 1, 1, 9 * GIB, ("iso",))}),
            "holds no disk images",
        ),
        (
            replace(SEEN, storages={"nvmeprom": Storage("nvmeprom", True, 1, 1, 9 * GIB, ("images",))}),
            "storage nvmeprom on prom has 9.0 GiB free, managed.dev needs 64.0 GiB",
        ),
        (without("/vms", "VM.Clone"), "lacks VM.Clone on /vms/9002"),
        (without("/vms", "VM.Allocate"), "lacks VM.Allocate on /vms/110"),
        (without("/vms", "VM.PowerMgmt"), "lacks VM.PowerMgmt on /vms/110"),
        (without("/vms", "VM.Config.Memory"), "lacks VM.Config.Memory on /vms/110"),
        (without("/vms", "VM.GuestAgent.Unrestricted"), "lacks VM.GuestAgent.Unrestricted"),
        (without("/vms", "VM.Config.Cloudinit"), "lacks VM.Config.Cloudinit or VM.Config.Network on"),
        (without("/storage/nvmeprom", "Datastore.AllocateSpace"), "lacks Datastore.AllocateSpace on /storage/nvmeprom"),
        (without("/sdn/zones/localnetwork", "SDN.Use"), "lacks SDN.Use on /sdn/zones/localnetwork/vmbr0"),
        (replace(SEEN, version=Version("8.4.21", "8.4")), "lacks VM.Monitor on /vms/110"),
    ],
)
def test_finds_in_one_line(seen: Survey, words: str) -> None:
    [finding] = findings(seen)
    assert words in finding
    assert "\n" not in finding


@pytest.mark.parametrize(
    ("loader", "bios", "fits"),
    [
        (BootLoader.SYSTEMD_BOOT, "ovmf", True),
        (BootLoader.SYSTEMD_BOOT, "seabios", False),
        (BootLoader.GRUB, "seabios", True),
        (BootLoader.GRUB, "ovmf", False),
        (BootLoader.GRUB_EFI, "ovmf", True),
        (BootLoader.GRUB_EFI, "seabios", False),
        (None, "seabios", True),
    ],
)
def test_firmware_and_boot_loader(loader: BootLoader | None, bios: str, fits: bool) -> None:
    assert (findings(with_template(bios=bios), replace(FACTS, boot_loader=loader)) == ()) is fits


@pytest.mark.parametrize(
    ("device", "fits"),
    [
        ("/dev/sda", True),
        ("/dev/vda", False),
        ("/dev/sdb", False),
        ("/dev/nvme0n1", False),
        ("/dev/disk/by-id/scsi-0QEMU_QEMU_HARDDISK_drive-scsi0", True),
        ("/dev/disk/by-id/scsi-0QEMU_QEMU_HARDDISK_drive-scsi1", False),
        ("/dev/disk/by-path/pci-0000:00:05.0-scsi-0:0:0:0", True),
    ],
)
def test_devices(device: str, fits: bool) -> None:
    assert (findings(facts=replace(FACTS, disko_devices=(device,))) == ()) is fits


@pytest.mark.parametrize(
    ("values", "fits"),
    [
        ({"efidisk0": "nvmeprom:base-9002-disk-1,efitype=4m,size=4M"}, True),
        ({"efidisk0": "nvmeprom:base-9002-disk-1,efitype=4m,pre-enrolled-keys=0,size=4M"}, True),
        ({"efidisk0": "nvmeprom:base-9002-disk-1,pre-enrolled-keys=1", "bios": "seabios"}, True),  # never looked at
        ({"efidisk0": "nvmeprom:base-9002-disk-1,pre-enrolled-keys=1"}, False),
    ],
)
def test_secure_boot(values: dict[str, Any], fits: bool) -> None:
    facts = replace(FACTS, boot_loader=None)
    assert (findings(with_template(**values), facts) == ()) is fits
    machine = findings(existing(**values), facts)
    assert (machine == ()) is fits
    assert all(line.startswith("vm 110 (dev) has Secure Boot's keys") for line in machine)


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        (replace(FACTS, guest_agent=False), "set services.qemuGuest.enable = true"),
        (replace(FACTS, ssh=False), "set services.openssh.enable = true"),
        (
            replace(FACTS, root_access=False),
            "its configuration has no way to root on a machine that was just installed",
        ),
    ],
)
def test_a_system_that_nobody_could_reach(facts: HostFacts, words: str) -> None:
    for seen in (SEEN, existing()):
        [finding] = findings(seen, facts)
        assert finding.startswith("dev: its configuration has no ")
        assert words in finding


def test_what_the_flake_does_not_say_is_not_judged() -> None:
    assert findings(facts=replace(FACTS, guest_agent=None, ssh=None)) == ()


@pytest.mark.parametrize(
    ("declared", "inherited", "fits"),
    [(2048, "512", True), (2047, "8192", False), (None, "2048", True), (None, "1024", False), (None, None, False)],
)
def test_the_installer_needs_memory(declared: int | None, inherited: str | None, fits: bool) -> None:
    vm = replace(DEV, memory=declared)
    found = findings(with_template(memory=inherited), vm=vm)
    assert [("managed.dev.memory: " in line) for line in found] == ([] if fits else [True])


def test_an_installed_machine_may_have_less_memory() -> None:
    assert findings(existing(), vm=replace(DEV, memory=1024)) == ()


def test_with_two_disks_the_letter_is_not_certain() -> None:
    two = with_template(scsi1="nvmeprom:base-9002-disk-1,size=1G")
    assert findings(two, replace(FACTS, disko_devices=("/dev/sdb",))) == ()
    assert findings(two, replace(FACTS, disko_devices=("/dev/sdc",))) != ()


BY_ID = "/dev/disk/by-id/scsi-0QEMU_QEMU_HARDDISK_drive-"


@pytest.mark.parametrize(
    ("devices", "words"),
    [
        (("/dev/sda", "/dev/sdb"), "disko formats /dev/sdb, which vm 110 (dev) does not have; its disks are scsi0"),
        (("/dev/sda", "/dev/nvme0n1"), "declare one more in managed.dev.disks, or correct disko's device"),
        ((f"{BY_ID}scsi0", f"{BY_ID}scsi1"), f"disko formats {BY_ID}scsi1, which vm 110 (dev) does not have"),
        ((f"{BY_ID}scsi0", "/dev/disk/by-id/virtio-data"), "disko formats /dev/disk/by-id/virtio-data, which"),
        (("/dev/sda", f"{BY_ID}scsi0"), f"disko formats /dev/sda and {BY_ID}scsi0, which are both the disk scsi0"),
        (("/dev/disk/by-id/ata-WDC_WD40",), "disko formats /dev/disk/by-id/ata-WDC_WD40, but the disk scsi0 of vm 110"),
    ],
)
def test_each_disk_that_disko_formats_is_there(devices: tuple[str, ...], words: str) -> None:
    [finding] = findings(facts=replace(FACTS, disko_devices=devices))
    assert words in finding


@pytest.mark.parametrize(
    ("devices", "words"),
    [
        (("/dev/sda", "/dev/sda"), "disko formats /dev/sda more than once; give each disk of vm 110 (dev) its own"),
        ((f"{BY_ID}scsi0", f"{BY_ID}scsi0"), f"disko formats {BY_ID}scsi0 more than once"),
        (
            ("/dev/sda", "/dev/disk/by-partlabel/x", "/dev/disk/by-partlabel/x"),
            "disko formats /dev/disk/by-partlabel/x more than once",
        ),
        (
            ("/dev/sda", f"{BY_ID}scsi0", f"{BY_ID}scsi1"),
            f"/dev/sda and {BY_ID}scsi0 and {BY_ID}scsi1, which can only be scsi0 and scsi1 of vm 110 (dev)",
        ),
        (("/dev/sdb", f"{BY_ID}scsi1", f"{BY_ID}scsi0"), "can only be scsi0 and scsi1"),
        (
            (f"{BY_ID}scsi0", f"{BY_ID.replace('-0', '-S', 1)}scsi0", "/dev/sda"),
            f"disko formats {BY_ID}scsi0 and {BY_ID.replace('-0', '-S', 1)}scsi0, which are both the disk scsi0",
        ),
        ((f"{BY_ID}scsi1", "/dev/sda"), ""),
        (("/dev/sda", "/dev/sdb"), ""),
        (("/dev/sda", f"{BY_ID}scsi0", "/dev/disk/by-partlabel/x"), ""),
    ],
)
def test_no_disk_is_formatted_twice(devices: tuple[str, ...], words: str) -> None:
    two = with_template(scsi1="nvmeprom:base-9002-disk-1,size=1G")
    found = findings(two, replace(FACTS, disko_devices=devices))
    assert len(found) == bool(words)
    assert words in "".join(found)


def test_a_template_that_is_not_visible_matters_to_a_clone_alone() -> None:
    hidden = Refused("template 9002 is not visible")
    assert findings(replace(existing(), template_unseen=hidden)) == ()
    with pytest.raises(Refused, match="template 9002 is not visible"):
        findings(replace(SEEN, template=None, template_unseen=hidden))


def test_disks_that_the_definitions_add_are_there_then() -> None:
    disk = Device("scsi1", {"serial": "data"}, parse_size("10G"), "nvmeprom")
    vm = replace(DEV, settings=replace(DEV.settings, disks=(disk,)))
    for second in ("/dev/sdb", f"{BY_ID}scsi1", f"{BY_ID.removesuffix('drive-')}data", "/dev/disk/by-partlabel/data"):
        assert findings(facts=replace(FACTS, disko_devices=(f"{BY_ID}scsi0", second)), vm=vm) == ()
    passed = replace(DEV, settings=replace(DEV.settings, pci=(Device("hostpci0", {"mapping": "nvme"}),)))
    facts = replace(FACTS, disko_devices=("/dev/sda", "/dev/nvme0n1"))
    assert findings(facts=facts, vm=passed) == findings(vm=passed)  # whatever else there may be to say of it


def test_every_storage_that_is_used_is_looked_at() -> None:
    """Disks on other storages, those that an existing VM starts with, and the template's own."""
    seen = {**SEEN.storages, "tank": Storage("tank", False, None, None, None, ("images",))}
    disk = Device("scsi1", {}, parse_size("10G"), "tank")
    vm = replace(DEV, settings=replace(DEV.settings, disks=(disk,)))
    tank = "managed.dev needs storage tank on prom, which is not active: not mounted, or its server does not answer"
    away = replace(SEEN, storages=seen, permissions=Permissions({**ALL, "/storage/tank": ALL["/storage/nvmeprom"]}))
    assert [line.partition(";")[0] for line in findings(away, vm=vm)] == [tank]
    there = replace(existing(scsi2="tank:vm-110-disk-1,size=1G"), storages=seen)
    assert there.actual
    off = replace(there, actual=replace(there.actual, running=False))
    assert [line.partition(";")[0] for line in findings(off)] == [tank]
    assert findings(there) == ()  # it runs
    base = replace(SEEN, template_storages={"old": Storage("old", False, None, None, None, (), enabled=False)})
    [finding] = findings(base)
    assert (
        finding
        == "storage old of template 9002 on prom is disabled; `pvesm set old --disable 0` on the node enables it"
    )


def test_all_findings_at_once() -> None:
    seen = replace(with_template(bios="seabios"), storages={"nvmeprom": None}, permissions=Permissions({}))
    assert len(findings(seen, replace(FACTS, disko_devices=()))) > 5


def test_without_rights_on_the_vmid_a_declared_pool_serves() -> None:
    granted = {path: privileges for path, privileges in ALL.items() if path != "/vms"}
    granted |= {"/pool/ours": ALL["/vms"], "/vms/9002": {"VM.Clone": True, "VM.Audit": True}}
    seen = replace(SEEN, permissions=Permissions(granted))
    assert any("VM.Allocate on /vms/110" in finding for finding in findings(seen))
    assert findings(seen, vm=replace(DEV, settings=Settings(pool="ours"))) == ()


def test_a_storage_that_the_token_may_not_see_may_not_be_there() -> None:
    granted = {path: privileges for path, privileges in ALL.items() if not path.startswith("/storage")}
    [finding] = findings(replace(SEEN, storages={}, permissions=Permissions(granted)))
    assert finding.startswith(
        "no storage nvmeprom on prom is visible to the API token; correct managed.dev.storage, or"
    )
    assert "`pveum acl modify /storage/nvmeprom --roles PVEDatastoreUser --tokens TOKEN --users USER`" in finding


def existing(**values: Any) -> Survey:
    [clone, *_] = plan_vm(Desired(FLEET, DEV, HOST, template()), None)
    assert isinstance(clone, Clone)
    config = cloned(clone, template(**values)).config
    return replace(SEEN, template=None, actual=ActualVm(config, running=True))


def test_the_drive_of_a_running_machine_takes_one_right() -> None:
    granted = {**ALL, "/vms": {**ALL["/vms"], "VM.Config.Network": True}}
    del granted["/vms"]["VM.Config.Cloudinit"]
    assert findings(replace(SEEN, permissions=Permissions(granted))) == ()
    [finding] = findings(replace(existing(ciuser="root"), permissions=Permissions(granted)))
    assert "lacks VM.Config.Cloudinit on /vms/110" in finding


def test_a_vmid_that_is_taken_is_refused() -> None:
    assert findings(existing()) == ()
    taken = replace(SEEN, actual=ActualVm(template(template=None), running=True))
    with pytest.raises(Refused, match="vm 110 on prom exists but is not this fleet's"):
        findings(taken)


def test_an_existing_machine_needs_room_for_its_growth_only() -> None:
    seen = existing(scsi0="nvmeprom:vm-110-disk-0,size=60G", digest="d")
    config = seen.actual.config if seen.actual else template()
    seen = replace(seen, actual=ActualVm(replace(config, values={**config.values, "digest": "d"}), running=True))
    assert findings(replace(seen, storages={"nvmeprom": Storage("nvmeprom", True, 1, 1, 4 * GIB, ("images",))})) == ()
    [finding] = findings(replace(seen, storages={"nvmeprom": Storage("nvmeprom", True, 1, 1, 3 * GIB, ("images",))}))
    assert "needs 4.0 GiB" in finding


def test_people_must_be_able_to_log_in() -> None:
    [finding] = preflight(FLEET, DEV, replace(HOST, authorized_keys=()), FACTS, SEEN)
    assert "authorizedKeys is empty" in finding


def test_a_name_that_no_machine_can_have() -> None:
    [finding] = findings(vm=replace(DEV, name="dev_1", disk=parse_size("64G")))
    assert "`dev_1` is not a DNS name" in finding
