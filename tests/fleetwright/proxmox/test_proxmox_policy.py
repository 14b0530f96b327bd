"""The guard: what passes, what it says when it refuses, and that nothing naming a protected guest ever passes."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetwright.errors import Refused
from fleetwright.models import Fleet
from fleetwright.proxmox.policy import GUEST_FILES, ROUTES, Kind, Policy
from fleetwright.reach import HOST_KEY_FILE
from tests.fleetwright.proxmox.fleets import DEV, EMPTY, FLEET

pytestmark = pytest.mark.unit

POLICY = Policy.from_fleet(FLEET)
NOTHING = Policy.from_fleet(EMPTY)
N = "/nodes/prom/qemu"
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
    ("GET", f"{N}/111/agent/file-read", {"file": "/etc/ssh/ssh_host_ed25519_key.pub"}),
    ("PUT", f"{N}/110/config", {"ciupgrade": False}),
    ("GET", "/nodes/prom/tasks/UPID:prom:0002A2CB:00052A4E:6B03F0ED:qmclone:9002:fleetwright@pve!lab:/status", {}),
    ("GET", "/cluster/nextid", {"vmid": 104}),
]


@pytest.mark.parametrize(("method", "path", "params"), ALLOWED)
def test_passes(method: str, path: str, params: dict[str, object]) -> None:
    POLICY.check(method, path, params)


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
    ("POST", f"{N}/9002/clone", {"newid": 110, "target": "prox2"}, "names no node prox2"),
    ("POST", f"{N}/110/clone", {"newid": 110}, "is not the template"),
    ("POST", f"{N}/104/clone", {"newid": 110}, "vm 104 (doc1) is readonly"),
    ("PUT", f"{N}/110/config", {"scsi1": "nvmeprom:vm-104-disk-0"}, "vm 104 (doc1) is readonly"),
    ("PUT", f"{N}/110/config", {"scsi1": "nvmeprom:base-9002-disk-0/vm-110-disk-0"}, "vm 9002 is the template"),
    ("PUT", f"{N}/110/config", {"scsi1": "local:104/vm.qcow2"}, "vm 104 (doc1) is readonly"),
    ("PUT", f"{N}/110/config", {"scsi1": "local:0,import-from=local:104/x.raw"}, "vm 104 (doc1) is readonly"),
    ("PUT", f"{N}/110/config", {"unused0": "nvmeprom:subvol-104-disk-0"}, "vm 104 (doc1) is readonly"),
    ("PUT", f"{N}/110/config", {"scsi1": "nvmeprom:32"}, "scsi1 is not listed"),
    ("PUT", f"{N}/110/config", {"delete": "protection"}, "delete is not listed"),
    ("PUT", f"{N}/110/config", {"description": "x"}, "description is not listed"),
    ("PUT", f"{N}/110/config", {"skiplock": 1}, "skiplock is not listed"),
    ("PUT", f"{N}/110/config", {"Cores": 1}, "Cores is not listed"),
    ("PUT", f"{N}/110/config", {"vmid": 104, "cores": 1}, "vm 104 (doc1) is readonly"),
    ("PUT", f"{N}/110/config", {"vmids": "110,104"}, "vm 104 (doc1) is readonly"),
    ("PUT", f"{N}/110/config", {"cores": {"a": 1}}, "is a dict"),
    ("PUT", f"{N}/110/config", {"cores": [[1, "vm-104-x"]]}, "vm 104 (doc1) is readonly"),
    ("POST", f"{N}/110/move_disk", {"disk": "scsi0", "target-vmid": 104}, "vm 104 (doc1) is readonly"),
    ("POST", f"{N}/110/move_disk", {"disk": "scsi0", "target-vmid": 110}, "never sends this"),
    ("DELETE", f"{N}/110", {}, "never sends this"),
    ("PATCH", f"{N}/110/config", {}, "never sends this"),
    ("post", f"{N}/110/status/start", {}, "never sends this"),
    ("OPTIONS", f"{N}/110/status/start", {}, "never sends this"),
    ("HEAD", f"{N}/110/config", {}, "never sends this"),
    ("POST", "/nodes/other/qemu/110/status/start", {}, "names no node other"),
    ("POST", "/nodes/prom/lxc/110/status/start", {}, "never sends this"),
    ("POST", "/nodes/prom/stopall", {}, "never sends this"),
    ("POST", "/nodes/prom/stopall", {"vms": "104"}, "vm 104 (doc1) is readonly"),
    ("POST", "/nodes/prom/migrateall", {"target": "x"}, "never sends this"),
    ("POST", "/nodes/prom/vzdump", {"all": 1}, "never sends this"),
    ("POST", "/nodes/prom/vzdump", {"vmid": "110,104"}, "vm 104 (doc1) is readonly"),
    ("POST", "/nodes/prom/status", {"command": "reboot"}, "never sends this"),
    ("POST", "/cluster/ha/resources", {"sid": "vm:104"}, "never sends this"),
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
    ("GET", f"{N}/9002/agent/file-read", {"file": "/etc/os-release"}, "vm 9002 is not managed"),
    ("GET", f"{N}/110/agent/file-read", {"file": "/etc/shadow"}, "the file is none of /etc/os-release,"),
    ("GET", f"{N}/111/agent/file-read", {"file": "/etc/ssh/ssh_host_ed25519_key"}, "the file is none of"),
    ("GET", f"{N}/111/agent/file-read", {"file": ["/etc/os-release", "/etc/shadow"]}, "the file is none of"),
    ("GET", f"{N}/111/agent/file-read", {}, "the file is none of"),
    ("GET", "/nodes/prom/lxc/110/agent/file-read", {"file": "/etc/os-release"}, "this GET acts"),
    ("GET", f"{N}/110/agent/file-read/x", {"file": "/etc/os-release"}, "this GET acts"),
    ("GET", f"{N}/104/agent/some-day", {}, "this GET acts"),
    ("GET", f"{N}/104/vncwebsocket", {}, "this GET acts"),
    ("GET", "/nodes/prom/scan/nfs", {"server": "x"}, "this GET acts"),
    ("GET", "/nodes/prom/query-url-metadata", {"url": "http://x"}, "this GET acts"),
    ("GET", "/nodes/prom/storage/pbs/file-restore/list", {}, "this GET acts"),
    ("GET", f"{N}/110/%2e%2e/104/config", {}, "not one of the API's"),
    ("GET", f"{N}/../config", {}, "not one of the API's"),
    ("GET", "/version?x=1", {}, "not one of the API's"),
]


@pytest.mark.parametrize(("method", "path", "params", "words"), REFUSED)
def test_refuses(method: str, path: str, params: dict[str, object], words: str) -> None:
    with pytest.raises(Refused) as refusal:
        POLICY.check(method, path, params)
    assert words in str(refusal.value)
    assert f"refusing {method} {path}" in str(refusal.value)


def test_the_file_that_reaching_a_machine_needs_may_be_read() -> None:
    assert HOST_KEY_FILE in GUEST_FILES


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
_plain = sorted({key for route in ROUTES for key, kind in route.parameters.items() if kind is Kind.PLAIN})
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
    value: object = volume.format(vmid)
    with pytest.raises(Refused):
        POLICY.check(method, f"{N}/110{tail}", {key: [value] if listed else value})


@given(method=_methods, path=st.text(alphabet="/.%2eEfF0149abcdqemunospr:?#&=\n ٤१", max_size=60))
def test_whatever_else_is_in_the_path_is_refused(method: str, path: str) -> None:
    whole = f"/nodes/prom/qemu/{path}"
    if method in ("POST", "PUT") and re.fullmatch(r"/nodes/prom/qemu/110/(cloudinit|status/\w+|config)", whole):
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
