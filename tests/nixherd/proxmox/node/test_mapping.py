"""What guests are given, compared with what is wanted and with the node: what differs is a line for a person."""

import shlex
from typing import Any

import pytest

from nixherd.fleet.models import Device, Origin, Settings, Vm
from nixherd.proxmox.answers import PciMapping
from nixherd.proxmox.node.mapping import Devices, Given, Line, compare, properties, slots_of, slots_wanted_of
from tests.nixherd.proxmox.node.nodes import AUDIO, GPU, USB


def mapping(*texts: str, name: str = "igpu") -> PciMapping:
    return PciMapping.of({"id": name, "map": list(texts)})


RIGHT = "node=prom,path=0000:7a:00.0,id=1002:13c0,iommugroup=14,subsystem-id=1458:d000"


def say(given: dict[str, str], wanted: dict[str, str], *found: PciMapping | str | None, **changes: Any) -> list[Line]:
    about = Given(109, "igp", given)
    mappings = {"igpu": found[0]} if found else {}
    more = {"devices": [GPU, AUDIO, USB], "named": [GPU], **changes}
    return compare(about, wanted, Devices("prom", **more), mappings.get)


def test_as_wanted() -> None:
    have = {"hostpci0": "mapping=igpu,pcie=1"}
    assert say(have, {"hostpci0": "pcie=on,mapping=igpu,rombar=1"}, mapping(RIGHT)) == [
        Line("VM 109 (igp): hostpci0: mapping=igpu,pcie=1, as wanted")
    ]
    assert say({"hostpci0": "7a:00,pcie=1"}, {}) == [Line("VM 109 (igp): hostpci0: 7a:00,pcie=1")]


def test_what_differs_is_the_line_that_a_person_types() -> None:
    [other, more] = say({"hostpci0": "0000:7a:00.0", "hostpci1": "7a:00.3"}, {"hostpci0": "host=7a:00.0,pcie=1"})
    assert other.text == "VM 109 (igp): hostpci0 is 0000:7a:00.0, wanted is host=7a:00.0,pcie=1"
    assert other.command == "qm set 109 --hostpci0 host=7a:00.0,pcie=1"
    assert more.command == "qm set 109 --delete hostpci1"
    [absent] = say({}, {"hostpci0": "7a:00.0;7a:00.1"})
    assert absent.command is not None
    assert shlex.split(absent.command) == ["qm", "set", "109", "--hostpci0", "7a:00.0;7a:00.1"]


def test_a_device_that_moved() -> None:
    [line] = say({"hostpci0": "0000:79:00.0,pcie=1,romfile=a.rom"}, {})
    assert "prom has no device there; the devices named are at 0000:7a:00.0" in line.text
    assert line.command == "qm set 109 --hostpci0 0000:7a:00.0,pcie=1,romfile=a.rom"
    [two] = say({"hostpci0": "79:00.0"}, {}, named=[GPU, AUDIO])
    assert two.command is None  # which of them is a person's to say
    [foreign] = say({"hostpci0": "7a:00.3"}, {})
    assert foreign.text.endswith("gives it 1022:15b6 at 0000:7a:00.3, which is not among the devices named here")


@pytest.mark.parametrize(
    ("found", "text", "command"),
    [
        (mapping(RIGHT), "VM 109 (igp): hostpci0: mapping=igpu", None),
        (
            None,
            "PCI mapping igpu is not there, for prom",
            "create /cluster/mapping/pci --id igpu --map node=prom,path=",
        ),
        ("403 no", "PCI mapping igpu: unknown: 403 no", None),
        (
            mapping("node=other,path=0000:01:00.0,id=10de:1b80"),
            "PCI mapping igpu has nothing on prom",
            "set /cluster/mapping/pci/igpu --map node=other,path=0000:01:00.0,id=10de:1b80 --map node=prom,"
            "path=0000:7a:00.0,id=1002:13c0,iommugroup=14",
        ),
        (
            mapping(RIGHT.replace("7a:", "79:"), "node=other,path=0000:01:00.0,id=10de:1b80"),
            "PCI mapping igpu: path is 0000:79:00.0, the node has 0000:7a:00.0",
            f"set /cluster/mapping/pci/igpu --map {RIGHT} --map node=other,path=0000:01:00.0,id=10de:1b80",
        ),
        (
            mapping(RIGHT.replace("iommugroup=14", "iommugroup=9")),
            "PCI mapping igpu: iommugroup is 9, the node has 14",
            f"set /cluster/mapping/pci/igpu --map {RIGHT}",
        ),
        (
            mapping(RIGHT.replace("13c0", "164e")),
            "PCI mapping igpu: id is 1002:164e, the node has 1002:13c0",
            f"set /cluster/mapping/pci/igpu --map {RIGHT}",
        ),
        (
            mapping("node=prom,path=0000:05:00.0,id=10de:1b80"),
            "PCI mapping igpu: prom has no device 10de:1b80 at 0000:05:00.0",
            None,
        ),
    ],
)
def test_mappings(found: PciMapping | str | None, text: str, command: str | None) -> None:
    [line] = say({"hostpci0": "mapping=igpu"}, {}, found)
    assert line.text == text
    assert (line.command or "").startswith(f"pvesh {command}" if command else "")
    assert bool(line.command) == bool(command)


def test_who_says_what_is_wanted() -> None:
    pci = (Device("hostpci0", {"mapping": "igpu", "pcie": "1"}),)
    dev = Vm(
        name="dev", vmid=110, origin=Origin.MANAGED, readonly=False, host_id="dev-host", settings=Settings(pci=pci)
    )
    assert slots_wanted_of(dev, {}) == {"hostpci0": "mapping=igpu,pcie=1"}
    for key in ("dev", "110", "dev-host"):
        assert slots_wanted_of(dev, {key: {"hostpci1": "x"}}) == {"hostpci1": "x"}
    assert slots_of({"hostpci1": "a", "hostpci": "b", "scsi0": "c"}) == {"hostpci1": "a"}
    assert properties("7A:00,pcie=yes,x-vga=off") == {"host": "0000:7a:00", "pcie": "1"}
