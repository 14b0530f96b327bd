"""The guard: what passes, what it says when it refuses, and that nothing naming a protected guest ever passes."""

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nixherd.errors import Refused
from nixherd.fleet.models import Fleet, GuestType, Origin, Vm
from nixherd.locate.guest_agent import HOST_KEY_FILE
from nixherd.locate.proof import BOOT_ID
from nixherd.proxmox.guard.policy import GUEST_FILES, Policy
from nixherd.proxmox.guard.routes import ROUTES
from nixherd.proxmox.route import Kind
from tests.nixherd.proxmox.fleets import DEV, EMPTY, FLEET

POLICY = Policy.from_fleet(FLEET)
NOTHING = Policy.from_fleet(EMPTY)
N = "/nodes/prom/qemu"
L = "/nodes/prom/lxc"
PROTECTED = (104, 109, 111, 9002, 105, 100, 999999999)  # readonly, imported, managed and readonly, template, unknown

ALLOWED = [
    ("POST", f"{N}/9002/clone", {"newid": 110, "name": "dev", "full": True, "storage": "nvmeprom", "target": "prom"}),
    ("PUT", f"{N}/110/config", {"cores": 4, "memory": "8192", "digest": "0" * 40, "ipconfig0": "ip=dhcp"}),
    ("PUT", f"{N}/110/config", {"sshkeys": "ssh-ed25519%20AAAA%20vm-104-disk-0", "tags": "vm-104;a"}),
    ("PUT", f"{N}/110/resize", {"disk": "scsi0", "size": "64G"}),
    ("PUT", f"{N}/110/cloudinit", {}),
    ("POST", f"{N}/110/status/start", {}),
    ("POST", f"{N}/110/status/shutdown", {"timeout": 60, "forceStop": False}),
    ("POST", f"{N}/110/agent/exec", {"command": ["/bin/echo", "104", "vm-104-disk-0"]}),
    ("GET", f"{N}/104/config", {"current": 1}),
    ("GET", f"{N}/104/agent/network-get-interfaces", {}),
    ("GET", f"{N}/104/agent/get-osinfo", {}),
    ("GET", f"{N}/110/agent/exec-status", {"pid": 4}),
    ("GET", f"{N}/110/agent/file-read", {"file": "/etc/os-release"}),
    *(("GET", f"{N}/{vmid}/agent/file-read", {"file": BOOT_ID}) for vmid in (110, 111)),
    ("GET", f"{N}/111/agent/file-read", {"file": "/etc/ssh/ssh_host_ed25519_key.pub"}),
    ("PUT", f"{N}/110/config", {"ciupgrade": False}),
    ("GET", "/nodes/prom/tasks/UPID:prom:0002A2CB:00052A4E:6B03F0ED:qmclone:9002:nixherd@pve!lab:/status", {}),
    ("GET", "/cluster/nextid", {"vmid": 104}),
    ("POST", "/nodes/other/qemu/110/status/start", {}),  # a VM is found wherever it runs
    ("POST", f"{N}/110/clone", {"newid": 110}),
    (
        "POST",
        f"{N}",
        {"vmid": 110, "scsi0": "nvmeprom:64,ssd=1", "ide2": "nvmeprom:cloudinit", "net0": "virtio,bridge=vmbr0"},
    ),
    ("POST", f"{N}", {"vmid": 110, "archive": "local:backup/vzdump-qemu-110-2026_01_02-03_04_05.vma.zst", "force": 1}),
    ("POST", f"{N}", {"vmid": 110, "archive": "pbs:backup/vm/110/2026-01-02T03:04:05Z"}),
    ("DELETE", f"{N}/110", {"purge": 1}),
    ("DELETE", f"{N}/110", {"destroy-unreferenced-disks": 0}),
    ("PUT", f"{N}/110/config", {"scsi1": "nvmeprom:base-9002-disk-0/vm-110-disk-0,size=4G"}),
    ("PUT", f"{N}/110/config", {"scsi1": "local:9002/base-9002-disk-0.qcow2/110/vm-110-disk-0.qcow2"}),
    ("PUT", f"{N}/110/config", {"ide2": "none,media=cdrom"}),
    ("PUT", f"{N}/110/config", {"ide2": "local:iso/nixos-26.05.iso,media=cdrom"}),
    ("PUT", f"{N}/110/config", {"delete": "protection,net1,unused0"}),
    ("PUT", f"{N}/110/config", {"hostpci0": "mapping=igpu,pcie=1,x-vga=1"}),
    ("PUT", f"{N}/110/config", {"ipconfig0": "ip=10.0.0.5/24,gw=10.0.0.1,ip6=fd00::5/64", "boot": "order=scsi0;net0"}),
    ("POST", f"{N}/110/move_disk", {"disk": "scsi0", "target-vmid": 110, "target-disk": "scsi4"}),
    ("POST", f"{N}/110/migrate", {"target": "prom2", "online": 1, "targetstorage": "local:tank,nvmeprom:tank"}),
    ("POST", f"{N}/110/snapshot", {"snapname": "clean", "description": "before vm-104-disk-0", "vmstate": 0}),
    ("DELETE", f"{N}/110/snapshot/clean", {}),
    ("GET", f"{N}/110/snapshot/clean/config", {}),
    ("GET", f"{N}/104/snapshot", {}),
    ("POST", "/nodes/prom/vzdump", {"vmid": "110", "storage": "local", "remove": 0, "mode": "snapshot"}),
    ("DELETE", "/nodes/prom/storage/local/content/local:backup/vzdump-qemu-110-2026_01_02-03_04_05.vma.zst", {}),
    ("PUT", "/nodes/prom/storage/pbs/content/pbs:backup/vm/110/2026-01-02T03:04:05Z", {"protected": 1}),
    ("GET", "/nodes/prom/storage/local/content", {"content": "backup", "vmid": 104}),
]

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
    ("PUT", f"{L}/210/config", {"mp0": "nvmeprom:4,mp=/srv", "features": "nesting=1"}),
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
        "is not a backup whose guest can be told",
    ),
    (
        "DELETE",
        "/nodes/prom/storage/tank/content/local:backup/vzdump-qemu-110-2026_01_02-03_04_05.vma.zst",
        {},
        "is not on tank",
    ),
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


# What a changing request can be made of: pieces of real ones, tricks, and whatever else there is.

_vmid = st.sampled_from(PROTECTED)
_tails = st.sampled_from(
    [
        "",
        "/config",
        "/clone",
        "/resize",
        "/status/stop",
        "/agent/exec",
        "/move_disk",
        "/template",
        "/status/start",
        "/x",
    ]
)
_methods = st.sampled_from(["POST", "PUT", "DELETE", "PATCH", "post", "HEAD", "OPTIONS", "TRACE", "CONNECT", ""])
_volume = st.sampled_from(
    [
        "nvmeprom:vm-{}-disk-0",
        "vm-{}-cloudinit",
        "nvmeprom:base-{}-disk-0/vm-110-disk-1",
        "nvmeprom:base-110-disk-0/vm-{}-disk-1",
        "local:{}/x.qcow2",
        "local:110/a.raw,import-from=local:{}/b.raw",
        "local:backup/vzdump-qemu-{}-2026.vma.zst",
        "pbs:backup/vm/{}/2026",
        "/dev/pve/vm-{}-disk-0",
        "nvmeprom:subvol-{}-disk-0,mp=/x",
    ]
)
_free = (Kind.TEXT, Kind.WORDS)
_plain = sorted({key for route in ROUTES for key, kind in route.parameters.items() if kind not in _free})
_plain = [key for key in _plain if not any(route.kind_of(key) in _free for route in ROUTES)]
_keys = st.one_of(st.sampled_from([*_plain, "scsi1", "unused0", "archive", "volume"]), st.text(max_size=8))
_vmid_keys = st.sampled_from(["newid", "vmid", "target-vmid", "vmids", "vms", "ids", "NEWID", "guests", "ctid"])
_harmless = st.dictionaries(
    st.sampled_from(["cores", "memory", "digest", "name", "size", "disk", "timeout"]), st.integers(0, 9), max_size=3
)


@given(method=_methods, vmid=_vmid, tail=_tails, params=_harmless, node=st.sampled_from(["prom", "other"]))
def test_no_change_to_a_protected_guest_in_the_path(
    method: str, vmid: int, tail: str, params: dict[str, object], node: str
) -> None:
    for kind in ("qemu", "lxc"):
        with pytest.raises(Refused):
            POLICY.check(method, f"/nodes/{node}/{kind}/{vmid}{tail}", params)


@given(method=_methods, tail=_tails, key=_vmid_keys, vmid=_vmid, params=_harmless, many=st.booleans())
def test_no_change_with_a_protected_guest_as_parameter(
    method: str, tail: str, key: str, vmid: int, params: dict[str, object], many: bool
) -> None:
    for source in (110, 9002):
        value: object = [110, vmid] if many else vmid
        with pytest.raises(Refused):
            POLICY.check(method, f"{N}/{source}{tail}", {**params, key: value})


@given(method=_methods, tail=_tails, key=_keys, volume=_volume, vmid=_vmid, listed=st.booleans())
def test_no_change_with_a_protected_guest_in_a_volume(
    method: str, tail: str, key: str, volume: str, vmid: int, listed: bool
) -> None:
    if "base-{}" in volume and vmid == POLICY.template:
        return  # what a linked clone stands on
    value: object = volume.format(vmid)
    with pytest.raises(Refused):
        POLICY.check(method, f"{N}/110{tail}", {key: [value] if listed else value})


@given(method=_methods, path=st.text(alphabet="/.%2eEfF0149abcdqemunospr:?#&=\n ٤१", max_size=60))
def test_whatever_else_is_in_the_path_is_refused(method: str, path: str) -> None:
    whole = f"/nodes/prom/qemu/{path}"
    if method in ("POST", "PUT", "DELETE") and re.fullmatch(r"/nodes/prom/qemu/110(/\w+)*", whole):
        return
    with pytest.raises(Refused):
        POLICY.check(method, whole, {})


@given(
    method=_methods,
    path=st.one_of(st.text(max_size=40), st.sampled_from([case[1] for case in ALLOWED])),
    params=st.dictionaries(st.text(max_size=6), st.one_of(st.integers(), st.text(max_size=9)), max_size=3),
)
def test_a_fleet_without_machines_changes_nothing(method: str, path: str, params: dict[str, object]) -> None:
    with pytest.raises(Refused):
        NOTHING.check(method, path, params)


@given(method=_methods, path=st.sampled_from([case[1] for case in ALLOWED]), vmid=st.integers(-5, 2_000_000_000))
def test_only_a_changeable_machine_is_ever_made(method: str, path: str, vmid: int) -> None:
    if vmid == 110:
        return
    with pytest.raises(Refused):
        POLICY.check(method, path, {"newid": vmid})
