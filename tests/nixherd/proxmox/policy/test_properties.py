"""Whatever a changing request is made of: nothing protected is reached."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nixherd.base.errors import Refused
from nixherd.proxmox.guard.policy import Policy
from nixherd.proxmox.guard.routes import ROUTES
from nixherd.proxmox.route import Kind
from tests.nixherd.proxmox.fleets import EMPTY
from tests.nixherd.proxmox.policy.conftest import ALLOWED, POLICY, N

NOTHING = Policy.from_fleet(EMPTY)
PROTECTED = (104, 109, 111, 9002, 105, 100, 999999999)  # readonly, imported, managed and readonly, template, unknown


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
