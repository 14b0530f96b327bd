"""What may be wiped, installed and rebooted."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from nixherd.base.errors import NotVisible, Refused
from nixherd.fleet.models import Fleet, GuestType, Origin
from nixherd.proxmox.config import VmConfig
from nixherd.proxmox.permission import mark, require_installable, require_no_declared_guest
from tests.nixherd.proxmox.fleets import DEV, DOC1, FLEET, HOST, KEY

MANAGED = replace(FLEET, vms={"dev": DEV, "doc1": DOC1})


def fleet(key: str | None = None, **vm: Any) -> Fleet:
    """With other definitions of `dev`; none at all without any."""
    vms = {"dev": replace(DEV, **vm)} if vm else {}
    return replace(FLEET, vms=vms, hosts={"dev": replace(HOST, public_key=key)})


@pytest.mark.parametrize("allowed", [fleet(cores=4), fleet(cores=4, key=KEY), fleet()])
def test_a_managed_vm_and_a_placeholder_may_be_installed(allowed: Fleet) -> None:
    require_installable(allowed, "dev", "wipe")


@pytest.mark.parametrize(
    ("refused", "because"),
    [
        (
            fleet(readonly=True),
            "vm 110 (dev) is readonly in vms/definitions.nix; refusing to wipe dev; remove the flag",
        ),
        (
            fleet(origin=Origin.IMPORTED, readonly=False),
            "vm 110 (dev) is imported.dev in vms/definitions.nix, never to",
        ),
        (fleet(type=GuestType.LXC), "vm 110 (dev) is a container in vms/definitions.nix; refusing to wipe dev"),
        (fleet(key=KEY), "dev has a publicKey in hosts.nix, so it is installed already; refusing to wipe it; put a"),
        (replace(fleet(), hosts={}), "dev has a publicKey in hosts.nix"),
    ],
)
def test_nothing_else_may(refused: Fleet, because: str) -> None:
    with pytest.raises(Refused) as caught:
        require_installable(refused, "dev", "wipe")
    assert str(caught.value).startswith(because)


def test_a_declared_guest_under_another_name_is_refused() -> None:
    """A mistyped address of bare metal that leads to one of our VMs."""
    config = VmConfig({"name": "doc1", "net0": "virtio=BC:24:11:A1:04:01,bridge=vmbr0"})
    asked: list[int] = []

    def ask(node: str, vmid: int, type: GuestType) -> VmConfig | None:
        asked.append(vmid)
        return config if vmid == DOC1.vmid else None

    client: Any = SimpleNamespace(config=ask, resources=tuple, is_free=lambda vmid: True)
    require_no_declared_guest(MANAGED, client, ["02:42:aa:bb:cc:dd"], "metal", "wipe")
    assert asked == [110, 104]
    with pytest.raises(Refused, match=r"^the machine that answers for metal is vm 104 \(doc1\) of vms/definitions.nix"):
        require_no_declared_guest(MANAGED, client, ["02:42:aa:bb:cc:dd", "bc:24:11:a1:04:01"], "metal", "wipe")


def test_a_machine_is_not_wiped_while_a_guest_that_it_may_be_is_not_visible() -> None:
    def ask(node: str, vmid: int, type: GuestType) -> VmConfig | None:
        if vmid == DEV.vmid:
            raise NotVisible("guest 110", 110, "nixherd@pve!lab")
        return VmConfig({"net0": "virtio=BC:24:11:A1:04:01,bridge=vmbr0"})

    client: Any = SimpleNamespace(config=ask, resources=tuple, token_id="nixherd@pve!lab")
    with pytest.raises(Refused, match=r"is one of vms/definitions.nix is not known; .* vm 110 \(dev\) is not visible"):
        require_no_declared_guest(MANAGED, client, ["02:42:aa:bb:cc:dd"], "metal", "wipe")
    with pytest.raises(Refused, match=r"is vm 104 \(doc1\) of vms/definitions.nix"):  # the one after it is looked at
        require_no_declared_guest(MANAGED, client, ["bc:24:11:a1:04:01"], "metal", "wipe")


def test_a_mark_is_of_one_fleet_one_host_and_one_vm() -> None:
    assert mark(MANAGED, "dev") == "nixherd fleet=homelab host=dev vmid=110"
    assert mark(fleet(), "dev") == "nixherd fleet=homelab host=dev"
    assert mark(replace(MANAGED, id="other"), "dev") != mark(MANAGED, "dev")
