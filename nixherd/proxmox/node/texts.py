"""What the files say that give devices to vfio-pci and reset a card. Pure."""

import re
from collections.abc import Sequence

from nixherd.errors import FleetError, Refused
from nixherd.proxmox.node import CARD_RULE, RESET_MODULE, VENDOR_RESET, VFIO, VFIO_MODULES
from nixherd.proxmox.node.states import ModuleState, PciDevice, PciState
from nixherd.proxmox.node.wanted import Wanted

MODULES = ("vfio", "vfio_iommu_type1", "vfio_pci")
_HEAD = "# Written by nixherd's deploys/proxmox_host.py, which writes it anew: change what it is told.\n"
# Which drivers a host has for what is passed through, by vendor and class; they are to come after vfio-pci.
_DISPLAY = {"1002": ("amdgpu", "radeon"), "8086": ("i915", "xe"), "10de": ("nouveau", "nvidia")}
_BY_CLASS = {"0403": ("snd_hda_intel",), "0c03": ("xhci_pci",), "1080": ("ccp",)}
_DISPLAYS = ("0300", "0302", "0380")
_IDS = re.compile(r"\bids=")


def named(wanted: Wanted, pci: PciState) -> list[PciDevice]:
    """The node's devices that are asked for. FleetError where it has none of an id."""
    for id in wanted.devices:
        if not any(device["id"] == id for device in pci["devices"]):
            raise FleetError(f"devices: this node has no {id}; `lspci -nn` there shows what it has")
    return [device for device in pci["devices"] if device["id"] in wanted.devices]


def cards(devices: Sequence[PciDevice]) -> list[PciDevice]:
    """Those that vendor-reset is for: AMD's that show something."""
    return [device for device in devices if device["id"].startswith("1002:") and device["kind"] in _DISPLAYS]


def drivers_of(devices: Sequence[PciDevice]) -> list[str]:
    """What the host would drive these devices with."""
    found: list[str] = []
    for device in devices:
        display = device["kind"] in _DISPLAYS
        found += _DISPLAY.get(device["id"][:4], ()) if display else _BY_CLASS.get(device["kind"], ())
    return sorted(set(found))


def vfio(wanted: Wanted, devices: Sequence[PciDevice]) -> dict[str, str]:
    """The files that bind these devices to vfio-pci, by path."""
    lines = [f"options vfio-pci ids={','.join(wanted.devices)}"]
    lines += [f"softdep {driver} pre: vfio-pci" for driver in drivers_of(devices)]
    lines += [f"blacklist {module}" for module in wanted.blacklist]
    return {VFIO: _HEAD + "\n".join(lines) + "\n", VFIO_MODULES: _HEAD + "\n".join(MODULES) + "\n"}


def reset(devices: Sequence[PciDevice]) -> dict[str, str]:
    """The files that load vendor-reset and have the kernel reset these cards by it, by path.

    Since Linux 5.15 a device has a list of ways to be reset, and the module's is `device_specific`, which is accepted
    once the module is loaded (its own udev rules do the same for the cards that it knows).
    """
    rules = []
    for id in sorted({device["id"] for device in cards(devices)}):
        vendor, _, device = id.partition(":")
        rules.append(
            f'ACTION=="add", SUBSYSTEM=="pci", ATTR{{vendor}}=="0x{vendor}", ATTR{{device}}=="0x{device}", '
            f'RUN+="/sbin/modprobe {VENDOR_RESET}", '
            "RUN+=\"/bin/sh -c 'echo device_specific >/sys$devpath/reset_method'\""
        )
    return {CARD_RULE: _HEAD + "\n".join(rules) + "\n", RESET_MODULE: f"{_HEAD}{VENDOR_RESET}\n"}


def require_no_others(modules: ModuleState) -> None:
    """Refused where another file says which devices vfio-pci gets: of two such lists the kernel takes one."""
    for line in modules["options"]:
        if _IDS.search(line):
            file, number, text = line.split(":", 2)
            raise Refused(
                f"{file}:{number}: `{text.strip()}` says which devices vfio-pci gets; take it out and name its devices "
                "here as well, then run this again"
            )


def differing(texts: dict[str, str], modules: ModuleState) -> dict[str, str]:
    """Those of these files that are not there as they should be."""
    return {path: text for path, text in texts.items() if modules["texts"].get(path) != text}
