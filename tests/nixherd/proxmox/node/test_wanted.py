"""What an operator asks for, as words, lists and JSON; and the files that come of it."""

from typing import Any

import pytest

from nixherd.errors import FleetError, Refused, Usage
from nixherd.proxmox.node.passthrough import (
    Passthrough,
    differing,
    drivers_of,
    named,
    read,
    require_no_others,
    reset,
    vfio,
)
from nixherd.proxmox.node.states import CARD_RULE, RESET_MODULE, VFIO, VFIO_MODULES, ModuleState, PciState
from tests.nixherd.proxmox.node.nodes import AUDIO, GPU, USB


def test_text_lists_and_mappings() -> None:
    assert read({"devices": "1002:13C0,1002:1640"}) == Passthrough(("1002:13c0", "1002:1640"))
    found = read(
        {
            "devices": ["1002:13c0", "1002:13c0"],
            "vendor_reset": "/usr/local/src/vendor-reset/",
            "blacklist": "amdgpu radeon",
            "kernel_words": "iommu=pt video=efifb:off,vesafb:off",
            "hostpci": {"igp": {"hostpci0": "mapping=igpu,pcie=1"}},
        }
    )
    assert found == Passthrough(
        ("1002:13c0",),
        "/usr/local/src/vendor-reset",
        ("amdgpu", "radeon"),
        ("iommu=pt", "video=efifb:off,vesafb:off"),
        {"igp": {"hostpci0": "mapping=igpu,pcie=1"}},
    )


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ({"devices": None}, "devices: which ones"),
        ({"devices": []}, "devices: which ones"),
        ({"devices": 1002}, "devices=1002: that is not a list"),
        ({"devices": "0000:7a:00.0"}, "'0000:7a:00.0' is none; write ids as `lspci -nn`"),
        ({"devices": "1002:13c0\noptions x"}, "is none"),
        ({"vendor_reset": "vendor-reset"}, "vendor_reset=vendor-reset: name the directory"),
        ({"vendor_reset": "/a/../b"}, "name the directory"),
        ({"vendor_reset": "/a b; reboot"}, "name the directory"),
        ({"vendor_reset": True}, "name the directory"),
        ({"blacklist": "a;$(b)"}, "is none; write names of modules"),
        ({"kernel_words": 'x="y'}, "is none; write words"),
        ({"hostpci": "x"}, "that is not a mapping of guests"),
        ({"hostpci": {"igp": {}}}, "says no hostpciN"),
        ({"hostpci": {"igp": {"hostpci16": "x"}}}, "igp.hostpci16"),
        ({"hostpci": {"igp": {"hostpci0": "x y"}}}, "igp.hostpci0"),
    ],
)
def test_what_cannot_be_meant(data: dict[str, Any], why: str) -> None:
    with pytest.raises(Usage, match=why.replace("$", r"\$")):
        read({"devices": "1002:13c0", **data})


def test_files() -> None:
    wanted = Passthrough(("1002:13c0", "1002:1640"), blacklist=("nouveau",))
    files = vfio(wanted, [GPU, AUDIO])
    assert files[VFIO].splitlines()[1:] == [
        "options vfio-pci ids=1002:13c0,1002:1640",
        *(f"softdep {driver} pre: vfio-pci" for driver in ("amdgpu", "radeon", "snd_hda_intel")),
        "blacklist nouveau",
    ]
    assert files[VFIO_MODULES].splitlines()[1:] == ["vfio", "vfio_iommu_type1", "vfio_pci"]
    assert drivers_of([USB]) == ["xhci_pci"]
    rules = reset([GPU, AUDIO, USB])
    [rule] = rules[CARD_RULE].splitlines()[1:]
    assert 'ATTR{vendor}=="0x1002", ATTR{device}=="0x13c0"' in rule
    assert rule.index("modprobe vendor-reset") < rule.index("echo device_specific >/sys$devpath/reset_method")
    assert rules[RESET_MODULE].splitlines()[1:] == ["vendor-reset"]


def test_what_others_say() -> None:
    have = ModuleState(loaded=[], options=["/etc/modprobe.d/v.conf:3:options vfio-pci ids=1:2"], texts={}, times={})
    with pytest.raises(Refused, match=r"/etc/modprobe.d/v.conf:3: `options vfio-pci ids=1:2` says which devices"):
        require_no_others(have)
    require_no_others({**have, "options": ["/etc/modprobe.d/v.conf:3:options vfio-pci disable_vga=1"]})
    assert differing({"a": "1", "b": "2"}, {**have, "texts": {"a": "1", "b": "3"}}) == {"b": "2"}
    pci = PciState(devices=[GPU, USB], groups=1)
    assert named(Passthrough(("1002:13c0",)), pci) == [GPU]
    with pytest.raises(FleetError, match="this node has no 10de:1b80"):
        named(Passthrough(("1002:13c0", "10de:1b80")), pci)
