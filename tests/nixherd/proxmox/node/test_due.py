"""What is in effect and what waits for a boot: what runs, compared with what is set."""

from typing import Any

import pytest

from nixherd.proxmox.node.status import problems, read_back, remarks, waiting
from tests.nixherd.proxmox.node.nodes import AUDIO, BRIDGE, GPU, KERNEL, USB, kernel, seen

BEFORE = {"booted": 1_763_000_000}  # the boot came first, then the settings


def test_after_a_boot_nothing_is_due() -> None:
    found = seen()
    assert (waiting(found), problems(found), remarks(found)) == ([], [], [])


@pytest.mark.parametrize(
    ("changes", "what", "remedy"),
    [
        ({"booting": {"command_line": "quiet"}}, "the running kernel was not told iommu=pt", "which entry was booted"),
        ({"modules": {"loaded": ["vfio", "vendor_reset"]}}, "not loaded: vfio_iommu_type1, vfio_pci", "journalctl"),
        (
            {"devices": [{**GPU, "driver": "amdgpu"}]},
            "0000:7a:00.0 (1002:13c0) is driven by amdgpu",
            "blacklist=amdgpu",
        ),
        ({"devices": [{**AUDIO, "driver": None}]}, "is driven by nothing", "another module takes it first"),
        ({"modules": {"loaded": ["vfio", "vfio_iommu_type1", "vfio_pci"]}}, "not loaded: vendor-reset", "modprobe"),
        ({"devices": [{**GPU, "reset_method": "bus"}]}, "(1002:13c0) is reset by bus", "src/device-db.h"),
        ({"devices": [{**GPU, "reset_method": None}]}, "is reset by nothing", "src/device-db.h"),
    ],
)
def test_what_is_not_in_effect(changes: dict[str, Any], what: str, remedy: str) -> None:
    """Before a boot it waits for one; after one it is something that no boot mends, and why is said."""
    [before] = waiting(seen(**changes, node=BEFORE))
    assert what in str(before)
    assert not before.booted
    assert remedy not in str(before)
    [after] = waiting(seen(**changes))
    assert after.booted
    assert what in str(after)
    assert remedy in str(after)


def test_a_module_that_was_built_anew() -> None:
    [found] = waiting(seen(dkms={"loaded": "0B"}))
    assert "another build of vendor-reset is loaded" in str(found)
    assert not found.booted
    unknown: tuple[dict[str, Any], ...] = ({"loaded": None}, {"builds": {}})
    for told in unknown:  # which is not known: no word of it
        assert waiting(seen(dkms=told)) == []


def test_what_is_read_back() -> None:
    assert read_back(seen()) == (
        f"read back: the next kernel is {KERNEL}, told iommu=pt; vendor-reset 0.1.1 is installed for {KERNEL}"
    )
    unknown = read_back(seen(booting={"entries": None, "grub_default": "saved"}, dkms={"status": ""}))
    assert "the next kernel is unknown, told iommu=pt by its files; what the boot loader has is unknown" in unknown
    assert "is installed for none" in unknown
    for booting in ({"entries": ["linux x quiet"]}, {"entries": None, "effective": "quiet"}):
        assert "told nothing of this" in read_back(seen(booting=booting))


def test_an_iommu_that_is_off_in_the_firmware() -> None:
    [found] = waiting(seen(groups=0))
    assert found.booted
    assert "AMD-Vi, VT-d" in str(found)
    [also] = waiting(seen(groups=0, booting={"command_line": "quiet"}, node=BEFORE))
    assert "was not told" in str(also)  # first what is ours


def test_the_kernel_that_boots_next_counts() -> None:
    newer = [kernel(), kernel("6.17.1-1-pve")]
    found = seen(booting={"kernels": newer})
    assert problems(found) == ["vendor-reset 0.1.1 is not installed for 6.17.1-1-pve, which boots next"]
    assert remarks(found) == [f"the next boot brings kernel 6.17.1-1-pve; {KERNEL} runs"]
    assert problems(seen(booting={"kernels": newer, "pinned": KERNEL})) == []
    [unknown] = problems(seen(booting={"kernels": newer, "grub_default": "saved"}))
    assert unknown.startswith("which kernel boots next is not known")


def test_secure_boot_and_shared_groups() -> None:
    [unsigned] = remarks(seen(node={"secure_boot": True}))
    assert "the module is not signed: it loads only if that key is enrolled" in unsigned
    [signed] = remarks(seen(node={"secure_boot": True}, dkms={"signers": {KERNEL: "DKMS module signing key"}}))
    assert "is signed by DKMS module signing key" in signed
    [shared] = remarks(seen(devices=[{**GPU, "group": 16}]))
    assert shared == "0000:7a:00.0 is in one IOMMU group with 0000:7a:00.3 (1022:15b6): they go with it"
    assert BRIDGE["group"] == GPU["group"]  # a bridge stays with the host
    assert USB["group"] != GPU["group"]
