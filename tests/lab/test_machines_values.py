"""What the machines decide without a machine: disks and cards of a configuration, volumes, recipes, the start state."""

import json
import os
import re
import struct
import time
import uuid
from pathlib import Path
from typing import Any

import pytest

from lab.api.permissions import Permissions, User
from lab.api.state import State
from lab.machines import network
from lab.machines.backend import disks
from lab.machines.gpt import ESP, is_ext4, read_partitions
from lab.machines.machine import Card, Faults
from lab.machines.network import Plug
from lab.machines.volumes import Volumes
from lab.setup.cache import Cache, stamp
from lab.start import PRIVILEGES, ROLE, TEMPLATE_DISK, recipe, start_state


def test_disks_are_named_by_bus_and_come_in_boot_order() -> None:
    config = {
        **{"scsihw": "virtio-scsi-single", "efidisk0": "s:vm-1-disk-0,size=4M", "ide2": "s:vm-1-cloudinit,media=cdrom"},
        **{"virtio0": "s:vm-1-disk-1,size=8G", "scsi1": "s:vm-1-disk-2", "scsi0": "none,media=cdrom"},
        "boot": "order=net0;virtio0",
    }
    assert list(disks(config).items()) == [("vda", "s:vm-1-disk-1"), ("sdb", "s:vm-1-disk-2")]


@pytest.mark.parametrize(
    ("net0", "card"),
    [
        ("virtio=BC:24:11:00:00:01,bridge=vmbr0", Card("BC:24:11:00:00:01", link_down=False)),
        ("model=e1000,macaddr=BC:24:11:00:00:01,link_down=1", Card("BC:24:11:00:00:01", link_down=True)),
        (None, Card(None, link_down=False)),
    ],
)
def test_a_card_is_read_from_net0(net0: str | None, card: Card) -> None:
    assert Card.parse(net0) == card


def test_a_fault_without_machines_is_for_all() -> None:
    faults = Faults({"no-return": None, "address-changes": {110}})
    assert faults.hits("no-return", 7)
    assert faults.hits("address-changes", 110)
    assert not faults.hits("address-changes", 111)
    assert not faults.hits("address-moves", 110)


class Cable(Plug):
    """One of which the guest does not notice the first interruptions."""

    def __init__(self, unnoticed: int) -> None:
        self.unnoticed, self.pulled = unnoticed, 0

    def replug(self) -> None:
        self.pulled += 1

    def interfaces(self) -> list[dict[str, Any]]:
        address = "10.77.0.101" if self.pulled > self.unnoticed else "10.77.0.100"
        return [{"ifname": "lo"}, {"ifname": "ens18", "addr_info": [{"local": address}]}]


@pytest.mark.parametrize(("unnoticed", "most", "pulled"), [(0, 9, 1), (2, 9, 3), (9, 4, 4), (0, 0, 0)])
def test_a_cable_is_pulled_until_the_guest_has_its_new_address(
    monkeypatch: pytest.MonkeyPatch, unnoticed: int, most: int, pulled: int
) -> None:
    monkeypatch.setattr(network, "LOOKS", 1)
    monkeypatch.setattr(network, "PAUSE", 0.0)
    cable = Cable(unnoticed)
    cable.move("10.77.0.101", lambda: cable.pulled < most)
    assert cable.pulled == pulled


def test_partitions_are_read_from_the_table(tmp_path: Path) -> None:
    image = tmp_path / "disk"
    header = bytearray(512)
    header[:8] = b"EFI PART"
    struct.pack_into("<QII", header, 72, 2, 128, 128)
    entry = ESP.bytes_le + uuid.uuid4().bytes_le + struct.pack("<QQQ", 2048, 4095, 0) + "böot".encode("utf-16-le")
    image.write_bytes(b"\0" * 512 + header + entry.ljust(128, b"\0") + b"\0" * 127 * 128)
    (found,) = read_partitions(image)
    assert (found.number, found.kind, found.name, found.offset, found.size) == (1, ESP, "böot", 1 << 20, 1 << 20)
    assert not is_ext4(image, found)
    image.write_bytes(b"\0" * 4096)
    assert read_partitions(image) == ()


def test_volumes_are_sparse_and_come_back_to_the_start(tmp_path: Path) -> None:
    template = tmp_path / "template"
    template.write_bytes(b"system")
    volumes = Volumes(tmp_path / "disks", {"s:base-1-disk-0": template})
    volumes.clone("s:base-1-disk-0", "s:vm-2-disk-0", 6)
    volumes.resize("s:vm-2-disk-0", 1 << 30)
    volumes.resize("s:vm-2-disk-0", 1 << 20)
    image = volumes.path("s:vm-2-disk-0")
    assert image.stat().st_size == 1 << 30
    assert image.stat().st_blocks * 512 < 1 << 20
    with image.open("rb") as file:
        assert file.read(6) == b"system"
    volumes.clone("s:vm-9-disk-0", "s:vm-3-disk-0", 4096)  # of a VM that is a state only
    assert volumes.path("s:vm-3-disk-0").stat().st_size == 4096
    volumes.delete("s:vm-3-disk-0")
    volumes.delete("s:vm-3-disk-0")
    volumes.reset()
    assert not volumes.exists("s:vm-2-disk-0")
    assert volumes.exists("s:base-1-disk-0")
    assert template.read_bytes() == b"system"


def test_a_recipe_changes_with_content_and_mode(tmp_path: Path) -> None:
    script = tmp_path / "tree" / "script"
    script.parent.mkdir()
    script.write_text("a")
    seen = {stamp([script.parent])}
    script.chmod(0o755)
    seen.add(stamp([script.parent]))
    script.write_text("b")
    seen.add(stamp([script.parent]))
    assert len(seen) == 3


def test_a_build_that_fails_leaves_nothing_and_one_that_is_there_is_kept(tmp_path: Path) -> None:
    def fail(path: Path) -> None:
        path.write_text("half")
        raise OSError("no room")

    def write(path: Path) -> None:
        path.write_text("whole")

    with Cache(tmp_path, print) as cache:
        with pytest.raises(OSError, match="no room"):
            cache.make("part", "making a part", fail)
        assert [path.name for path in tmp_path.iterdir()] == ["lock"]
        made = cache.make("part", "making a part", write)
        assert cache.make("part", "making a part", fail) == made
        assert made.read_text() == "whole"


def test_what_an_old_recipe_made_goes_when_nobody_used_it_for_weeks(tmp_path: Path) -> None:
    for name, days in (("part-old", 30), ("part-other-checkouts", 1), ("other-old", 30)):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (time.time() - days * 86400,) * 2)
    with Cache(tmp_path, print) as cache:
        cache.make("part-new", "making a part", lambda path: path.mkdir())
    assert {path.name for path in tmp_path.iterdir()} == {"lock", "other-old", "part-other-checkouts", "part-new"}


def test_the_labs_token_has_the_documented_recipe_word_for_word() -> None:
    text = (Path(__file__).parents[2] / "docs" / "proxmox.md").read_text()
    recipe_text = re.search(r"On a node, for Proxmox VE 9:\n\n```sh\n(.*?)```", text, re.DOTALL)
    assert recipe_text
    words = recipe_text[1].replace("\\\n", " ")
    privileges = re.search(r'pveum role add (\w+) --privs "([^"]*)"', words)
    assert privileges
    assert (privileges[1], sorted(privileges[2].split())) == (ROLE, sorted(PRIVILEGES))
    granted = re.findall(r"pveum acl modify (\S+) --roles (\w+) \$who", words)
    # the recipe names one storage and one guest of each kind, and says that the others go like it
    assert set(granted) <= set(recipe([]))
    of_a_kind = {(path.rpartition("/")[0], role) for path, role in granted}
    assert {(path.rpartition("/")[0], role) for path, role in recipe([])} == of_a_kind
    assert "Without a pool grant the role\non `/vms/110`, one path per managed VMID" in text
    state = start_state("secret", [110])
    assert {(row["path"], row["roleid"]) for row in state["acl"]} == {*recipe([]), ("/vms/110", ROLE)}
    assert {row["ugid"] for row in state["acl"]} == {"nixherd@pve", "nixherd@pve!lab"}
    assert state["users"]["nixherd@pve"]["tokens"]["lab"]["privsep"] == 1


def test_the_labs_token_may_provision_its_own_and_only_look_at_the_others() -> None:
    state = State(json.loads(json.dumps(start_state("secret", [110]))))
    permissions = Permissions(state)
    token = User("nixherd@pve", "lab", privsep=True)
    needed = ["VM.Allocate", "VM.Config.Disk", "VM.Config.Cloudinit", "VM.PowerMgmt", "VM.GuestAgent.Unrestricted"]
    assert permissions.allowed(token, "/vms/110", needed)
    assert permissions.allowed(token, "/pool/nixherd", needed)
    assert not permissions.privileges(token, "/vms/112")
    state.pools["nixherd"]["members"].append(112)
    assert permissions.allowed(token, "/vms/112", needed)
    assert not permissions.privileges(token, "/") | permissions.privileges(token, "/nodes/prom")
    assert permissions.allowed(token, "/vms/9002", ["VM.Clone"])
    assert permissions.allowed(token, "/storage/nvmeprom", ["Datastore.AllocateSpace"])
    assert permissions.allowed(token, "/sdn/zones/localnetwork/vmbr0", ["SDN.Use"])
    for theirs in ("/vms/104", "/vms/109"):
        assert permissions.privileges(token, theirs) & {"VM.Allocate", "VM.PowerMgmt", "VM.Config.Disk"} == set()
        assert permissions.allowed(token, theirs, ["VM.Audit"])
    assert TEMPLATE_DISK in state.storages["nvmeprom"].volumes
