"""What the guard lets pass, and what it refuses."""

from dataclasses import replace

import pytest

from nixherd.base.errors import Refused
from nixherd.base.files import BOOT_ID
from nixherd.base.ssh_keys import HOST_KEY_FILE
from nixherd.fleet.models import Fleet, GuestType, Origin, Vm
from nixherd.proxmox.guard.policy import GUEST_FILES, Policy
from tests.nixherd.proxmox.fleets import DEV, EMPTY, FLEET
from tests.nixherd.proxmox.policy.conftest import ALLOWED, POLICY, N

L = "/nodes/prom/lxc"

# What a container may be asked, on a fleet that declares one.
CONTAINERS = [
    (
        "POST",
        f"{L}",
        {"vmid": 210, "ostemplate": "local:vztmpl/debian-12.tar.zst", "rootfs": "nvmeprom:8", "net0": "name=eth0"},
    ),
    (
        "POST",
        f"{L}",
        {"vmid": 210, "ostemplate": "local:backup/vzdump-lxc-210-2026_01_02-03_04_05.tar.zst", "restore": 1},
    ),
    ("PUT", f"{L}/210/config", {"net0": "name=eth0,bridge=vmbr0", "features": "nesting=1"}),
    ("POST", f"{L}/210/status/shutdown", {"timeout": 60, "forceStop": 0}),
    ("DELETE", f"{L}/210", {}),
]


@pytest.mark.parametrize(("method", "path", "params"), ALLOWED)
def test_passes(method: str, path: str, params: dict[str, object]) -> None:
    POLICY.check(method, path, params)


@pytest.mark.parametrize(("method", "path", "params"), CONTAINERS)
def test_containers_pass_as_containers_only(method: str, path: str, params: dict[str, object]) -> None:
    dns = Vm("dns", 210, Origin.MANAGED, readonly=False, type=GuestType.LXC)
    Policy.from_fleet(replace(FLEET, vms={**FLEET.vms, "dns": dns})).check(method, path, params)
    as_vm = replace(dns, type=GuestType.QEMU)
    with pytest.raises(Refused, match="vm 210 is declared as qemu"):
        Policy.from_fleet(replace(FLEET, vms={**FLEET.vms, "dns": as_vm})).check(method, path, params)


REFUSED = [
    ("POST", f"{N}/104/status/stop", {}, "vm 104 (doc1) is readonly in vms/definitions.nix"),
    ("POST", f"{N}/111/status/start", {}, "vm 111 (kept) is readonly"),
    ("POST", f"{N}/109/status/start", {}, "vm 109 (igp) is imported"),
    ("POST", f"{N}/105/status/start", {}, "vm 105 is not declared"),
    ("PUT", f"{N}/9002/config", {"cores": 1}, "vm 9002 is the template"),
    ("POST", f"{N}/9002/template", {}, "vm 9002 is the template"),
    ("POST", f"{N}/9002/clone", {"newid": 104}, "vm 104 (doc1) is readonly"),
    ("POST", f"{N}/9002/clone", {"newid": 9002}, "vm 9002 is the template"),
    ("POST", f"{N}/9002/clone", {"newid": [110, 104]}, "vm 104 (doc1) is readonly"),
    ("POST", f"{N}/9002/clone", {"newid": [110, 110]}, "given 2 times"),
    ("POST", f"{N}/9002/clone", {"newid": "0110"}, "vm 0110 is not declared"),
    ("POST", f"{N}/9002/clone", {"newid": "१०४"}, "is not declared"),
    ("POST", f"{N}/9002/clone", {"newid": ""}, "is not declared"),
    ("POST", f"{N}/9002/clone", {}, "newid is missing"),
    ("POST", f"{N}/104/clone", {"newid": 110}, "vm 104 (doc1) is readonly"),
    ("PUT", f"{N}/110/config", {"scsi1": "nvmeprom:vm-104-disk-0"}, "vm 104 (doc1) is readonly"),
    ("PUT", f"{N}/110/config", {"scsi1": "local:104/vm.qcow2"}, "vm 104 (doc1) is readonly"),
    ("PUT", f"{N}/110/config", {"scsi1": "local:0,import-from=local:104/x.raw"}, "vm 104 (doc1) is readonly"),
    ("PUT", f"{N}/110/config", {"unused0": "nvmeprom:subvol-104-disk-0"}, "vm 104 (doc1) is readonly"),
    ("PUT", f"{N}/110/config", {"skiplock": 1}, "skiplock is not listed"),
    ("PUT", f"{N}/110/config", {"Cores": 1}, "Cores is not listed"),
    ("PUT", f"{N}/110/config", {"vmid": 104, "cores": 1}, "vm 104 (doc1) is readonly"),
    ("PUT", f"{N}/110/config", {"vmids": "110,104"}, "vm 104 (doc1) is readonly"),
    ("PUT", f"{N}/110/config", {"cores": {"a": 1}}, "is a dict"),
    ("PUT", f"{N}/110/config", {"cores": [[1, "vm-104-x"]]}, "vm 104 (doc1) is readonly"),
    ("POST", f"{N}/110/move_disk", {"disk": "scsi0", "target-vmid": 104}, "vm 104 (doc1) is readonly"),
    ("POST", f"{N}/110/move_disk", {"disk": "scsi0", "target-vmid": "110,104"}, "vm 104 (doc1) is readonly"),
    (
        "PUT",
        f"{N}/110/config",
        {"scsi1": "nvmeprom:vm-110-disk-0,file=nvmeprom:vm-104-disk-0"},
        "vm 104 (doc1) is readonly",
    ),
    ("PUT", f"{N}/110/config", {"scsi1": "/dev/sda"}, "is not a volume"),
    ("PUT", f"{N}/110/config", {"scsi1": "local:0,import-from=/etc/shadow"}, "is not a volume"),
    ("PUT", f"{N}/110/config", {"scsi1": "nvmeprom:base-104-disk-0/vm-110-disk-0"}, "vm 104 (doc1) is readonly"),
    ("PUT", f"{N}/110/config", {"scsi1": "nvmeprom:anything"}, "is not a volume whose owner can be told"),
    ("PUT", f"{N}/110/config", {"scsi1": "nvmeprom:vm-0110-disk-0"}, "vm 0110 is not declared"),
    ("PUT", f"{N}/110/config", {"net0": "virtio,bridge=vm-104-disk-0"}, "vm 104 (doc1) is readonly"),
    ("PUT", f"{N}/110/config", {"hostpci0": "0000:01:00.0"}, "is not a device by the name of a mapping"),
    (
        "PUT",
        f"{N}/110/config",
        {"hostpci0": "host=0000:01:00.0,mapping=igpu"},
        "is not a device by the name of a mapping",
    ),
    ("PUT", f"{N}/110/config", {"delete": "lock"}, "has lock among the options"),
    ("PUT", f"{N}/110/config", {"delete": "net0 lock"}, "has net0 lock among the options"),
    ("PUT", f"{N}/110/config", {"args": "-x"}, "args is not listed"),
    ("PUT", f"{N}/110/config", {"hookscript": "local:snippets/x"}, "hookscript is not listed"),
    ("PUT", f"{N}/110/config", {"cores": "4.0"}, "is not a whole number"),
    ("PUT", f"{N}/110/config", {"cores": "٤"}, "is not a whole number"),
    ("PUT", f"{N}/110/config", {"onboot": "true"}, "is neither 1 nor 0"),
    ("PUT", f"{N}/110/resize", {"disk": "scsi0", "size": "+1G"}, "is not a size to grow to"),
    ("PUT", f"{N}/110/resize", {"disk": "scsi0"}, "size is missing"),
    ("POST", f"{N}", {"vmid": 104, "force": 1}, "vm 104 (doc1) is readonly"),
    (
        "POST",
        f"{N}",
        {"vmid": 110, "archive": "local:backup/vzdump-qemu-104-2026_01_02-03_04_05.vma.zst"},
        "vm 104 (doc1)",
    ),
    ("POST", f"{N}", {"vmid": 110, "archive": "local:backup/mine.vma"}, "is not a backup whose guest can be told"),
    ("POST", f"{N}", {"vmid": 110, "archive": "-"}, "is not a backup whose guest can be told"),
    ("POST", f"{N}", {"name": "x"}, "vmid is missing"),
    ("DELETE", f"{N}/110", {"skiplock": 1}, "skiplock is not listed"),
    ("POST", "/nodes/prom/vzdump", {"vmid": "110", "storage": "local"}, "remove is missing"),
    ("POST", "/nodes/prom/vzdump", {"vmid": "110", "storage": "local", "remove": 1}, "remove is not 0"),
    ("DELETE", f"{N}/110", {"destroy-unreferenced-disks": 1}, "destroy-unreferenced-disks is not 0"),
    (
        "POST",
        "/nodes/prom/vzdump",
        {"vmid": "110", "storage": "local", "remove": 0, "exclude": "110"},
        "exclude is not listed",
    ),
    (
        "DELETE",
        "/nodes/prom/storage/local/content/local:backup/vzdump-qemu-104-2026_01_02-03_04_05.vma.zst",
        {},
        "vm 104 (doc1)",
    ),
    (
        "DELETE",
        "/nodes/prom/storage/nvmeprom/content/nvmeprom:vm-110-disk-0",
        {},
        "never sends this",
    ),
    (
        "DELETE",
        "/nodes/prom/storage/local/content/local:backup/vzdump-qemu-110-2026_01_02-03_04_05.vma.zst",
        {},
        "never sends this",
    ),
    (
        "PUT",
        "/nodes/prom/storage/pbs/content/pbs:backup/vm/110/2026-01-02T03:04:05Z",
        {"protected": 1},
        "never sends this",
    ),
    ("PUT", f"{N}/110/snapshot/clean/config", {"description": "x"}, "never sends this"),
    ("POST", f"{N}/110/agent/ping", {}, "never sends this"),
    ("GET", f"{N}/110/agent/get-osinfo", {}, "never sends this"),
    ("GET", "/nodes/prom/hardware/pci", {}, "never sends this"),
    ("GET", "/nodes/prom/vzdump/defaults", {}, "never sends this"),
    (
        "DELETE",
        "/nodes/prom/tasks/UPID:prom:0002A2CB:00052A4E:6B03F0ED:qmclone:110:nixherd@pve!lab:",
        {},
        "never sends this",
    ),
    ("GET", f"{N}/104/snapshot/clean/config", {}, "vm 104 (doc1) is readonly"),
    ("GET", f"{N}/110/cloudinit/dump", {"type": "user"}, "never sends this"),
    ("GET", f"{N}/110/config", {"current": 1, "x": 1}, "x is not listed"),
    ("PATCH", f"{N}/110/config", {}, "never sends this"),
    ("post", f"{N}/110/status/start", {}, "never sends this"),
    ("OPTIONS", f"{N}/110/status/start", {}, "never sends this"),
    ("HEAD", f"{N}/110/config", {}, "never sends this"),
    ("POST", "/nodes/prom/stopall", {}, "never sends this"),
    ("POST", "/nodes/prom/stopall", {"vms": "104"}, "vm 104 (doc1) is readonly"),
    ("POST", "/nodes/prom/migrateall", {"target": "x"}, "never sends this"),
    ("POST", "/nodes/prom/vzdump", {"all": 1}, "all is not listed"),
    ("POST", "/nodes/prom/vzdump", {"vmid": "110,104"}, "vm 104 (doc1) is readonly"),
    ("POST", "/nodes/prom/status", {"command": "reboot"}, "never sends this"),
    ("POST", "/cluster/ha/resources", {"sid": "vm:104"}, "vm 104 (doc1) is readonly"),
    ("PUT", "/pools/lab", {"vms": "104", "delete": 1}, "vm 104 (doc1) is readonly"),
    ("PUT", "/access/acl", {"path": "/vms/104", "roles": "x"}, "never sends this"),
    ("DELETE", "/nodes/prom/storage/nvmeprom/content/nvmeprom:vm-104-disk-0", {}, "vm 104 (doc1) is readonly"),
    ("POST", f"{N}/110/status/start/", {}, "never sends this"),
    ("POST", f"/{N}/110/status/start", {}, "never sends this"),
    ("POST", f"{N}//110/status/start", {}, "never sends this"),
    ("POST", f"{N}/110/../104/status/stop", {}, "vm 104 (doc1) is readonly"),
    ("POST", f"{N}/110/%2e%2e/104/status/stop", {}, "vm 104 (doc1) is readonly"),
    ("POST", f"{N}/110%2F..%2F104/status/stop", {}, "never sends this"),
    ("POST", f"{N}/%31%30%34/status/stop", {}, "never sends this"),
    ("POST", f"{N}/%2531%2530%2534/status/stop", {}, "never sends this"),
    ("POST", f"{N}/0110/status/start", {}, "vm 0110 is not declared"),
    ("POST", f"{N}/110 /status/start", {}, "never sends this"),
    ("POST", f"{N}/110\n/status/start", {}, "never sends this"),
    ("POST", f"{N}/110/status/start\n", {}, "never sends this"),
    ("POST", f"{N}/११०/status/start", {}, "is not declared"),
    ("POST", f"{N}/110/status/start?vmid=104", {}, "vm 104 (doc1) is readonly"),
    ("POST", f"{N}/110/status/start?x", {}, "never sends this"),
    ("POST", f"{N}/110/status/start#", {}, "never sends this"),
    ("POST", "/nodes/prom/QEMU/110/status/start", {}, "never sends this"),
    ("POST", "", {}, "never sends this"),
    ("POST", f"{N}/104/agent/exec", {"command": ["/bin/true"]}, "vm 104 (doc1) is readonly"),
    ("POST", f"{N}/104/agent/ping", {}, "vm 104 (doc1) is readonly"),
    ("GET", f"{N}/104/agent/exec-status", {"pid": 1}, "vm 104 (doc1) is readonly"),
    ("GET", f"{N}/111/agent/exec-status", {"pid": 1}, "vm 111 (kept) is readonly"),
    ("GET", f"{N}/104/agent/file-read", {"file": "/etc/os-release"}, "vm 104 is not managed"),
    ("GET", f"{N}/109/agent/file-read", {"file": "/etc/os-release"}, "vm 109 is not managed"),
    ("GET", f"{N}/105/agent/file-read", {"file": "/etc/os-release"}, "vm 105 is not managed"),
    ("GET", f"{N}/104/agent/file-read", {"file": BOOT_ID}, "vm 104 is not managed"),
    ("GET", f"{N}/110/agent/file-read", {"file": "/proc/self/environ"}, "the file is not one of"),
    ("GET", f"{N}/9002/agent/file-read", {"file": "/etc/os-release"}, "vm 9002 is not managed"),
    ("GET", f"{N}/110/agent/file-read", {"file": "/etc/shadow"}, "the file is not one of /etc/os-release,"),
    ("GET", f"{N}/111/agent/file-read", {"file": "/etc/ssh/ssh_host_ed25519_key"}, "the file is not one of"),
    ("GET", f"{N}/111/agent/file-read", {"file": ["/etc/os-release", "/etc/shadow"]}, "the file is not one of"),
    ("GET", f"{N}/111/agent/file-read", {}, "the file is not one of"),
    ("GET", "/nodes/prom/lxc/110/agent/file-read", {"file": "/etc/os-release"}, "never sends this"),
    ("GET", f"{N}/110/agent/file-read/x", {"file": "/etc/os-release"}, "never sends this"),
    ("GET", f"{N}/104/agent/some-day", {}, "never sends this"),
    ("GET", f"{N}/104/vncwebsocket", {}, "never sends this"),
    ("GET", "/nodes/prom/scan/nfs", {"server": "x"}, "never sends this"),
    ("GET", "/nodes/prom/query-url-metadata", {"url": "http://x"}, "never sends this"),
    ("GET", "/nodes/prom/storage/pbs/file-restore/list", {}, "never sends this"),
    ("GET", f"{N}/../config", {}, "never sends this"),
    ("GET", "/version?x=1", {}, "never sends this"),
]


@pytest.mark.parametrize(("method", "path", "params", "words"), REFUSED)
def test_refuses(method: str, path: str, params: dict[str, object], words: str) -> None:
    with pytest.raises(Refused) as refusal:
        POLICY.check(method, path, params)
    assert words in str(refusal.value)
    assert f"refusing {method} {path}" in str(refusal.value)


def test_the_files_that_reaching_a_machine_needs_may_be_read() -> None:
    assert {HOST_KEY_FILE, BOOT_ID} <= set(GUEST_FILES)


def test_says_what_and_what_to_do() -> None:
    with pytest.raises(Refused) as refusal:
        POLICY.check("POST", f"{N}/104/status/stop", {})
    assert str(refusal.value) == (
        "vm 104 (doc1) is readonly in vms/definitions.nix; refusing POST /nodes/prom/qemu/104/status/stop "
        "(edit the definitions if it may change)"
    )


@pytest.mark.parametrize(("method", "path", "params"), [case for case in ALLOWED if case[0] != "GET"])
def test_without_definitions_nothing_may_change(method: str, path: str, params: dict[str, object]) -> None:
    for fleet in (EMPTY, Fleet("/f", "f", {})):
        with pytest.raises(Refused):
            Policy.from_fleet(fleet).check(method, path, params)


def test_takes_definitions_as_they_were() -> None:
    vms = {"dev": DEV}
    policy = Policy.from_fleet(Fleet("/f", "f", {}, vms, FLEET.endpoint))
    vms.clear()
    assert policy.may_change(110)
    with pytest.raises(TypeError):
        policy.guests[104] = DEV  # type: ignore[index]
