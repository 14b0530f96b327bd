"""What boots a node, and which kernel it boots next. Pure."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from nixherd.errors import FleetError
from nixherd.proxmox.node import CMDLINE, GRUB
from nixherd.proxmox.node.states import BootState

# `proxmox-boot-tool status`, a line for each ESP: "AB12-34CD is configured with: uefi (versions: …), grub (…)"
_ESP = re.compile(r"^\S+ is configured with: (?P<with>.*)$", re.MULTILINE)
_KIND = re.compile(r"(?:^|, )(uefi|grub)(?= \(|,|$)")
# Packages of kernels, and those whose new versions bring new kernels; `proxmox-kernel-helper` is neither.
_IMAGE = re.compile(r"(?P<vendor>proxmox|pve)-kernel-(?P<what>[0-9].*?)(-signed)?")
_LINUX = re.compile(r"linux-image-(?P<what>.+?)(-unsigned)?")


@dataclass(frozen=True)
class Loader:
    """What boots a node: which files say its command line, and what makes them count."""

    name: str
    files: tuple[str, ...]
    update: str


def loader_of(boot: BootState) -> Loader:
    """FleetError where it is none that is known here, or does not say what it is."""
    if boot["tool"] is not None:
        kinds = {kind for line in _ESP.finditer(boot["tool"]) for kind in _KIND.findall(line["with"])}
        if not kinds:
            said = " / ".join(boot["tool"].split("\n")[:3]).strip() or "nothing"
            raise FleetError(f"`proxmox-boot-tool status` says {said}: what boots this node is not known")
        files = tuple(file for kind, file in (("uefi", CMDLINE), ("grub", GRUB)) if kind in kinds)
        names = {"uefi": "systemd-boot", "grub": "GRUB"}
        name = f"{' and '.join(names[kind] for kind in sorted(kinds))} by proxmox-boot-tool"
        return Loader(name, files, "proxmox-boot-tool refresh")
    if GRUB in boot["texts"]:
        return Loader("GRUB", (GRUB,), "update-grub")
    raise FleetError(
        f"neither {GRUB} nor an ESP of proxmox-boot-tool: this node is booted by something that is not known here"
    )


def order(version: str) -> tuple[tuple[int, int | str], ...]:
    """As `sort -V` has kernels' versions: numbers as numbers."""
    parts: Iterable[str] = re.findall(r"\d+|[^\d]+", version)
    return tuple((1, int(part)) if part.isdecimal() else (0, part) for part in parts)


def next_kernel(boot: BootState) -> str | None:
    """The kernel that the next boot brings; None where nobody can say."""
    versions = [kernel["version"] for kernel in boot["kernels"]]
    if boot["pinned"]:
        return boot["pinned"] if boot["pinned"] in versions else None
    if boot["tool"] is None and boot["grub_default"] not in ("", "0"):
        return None
    return max(versions, key=order, default=None)


def headers_of(package: str | None) -> str | None:
    """The package of the headers that go with a kernel's; None where it is none that is known here."""
    if package is None:
        return None
    if package == "proxmox-default-kernel":
        return "proxmox-default-headers"
    if match := _IMAGE.fullmatch(package):
        return f"{match['vendor']}-headers-{match['what']}"
    if match := _LINUX.fullmatch(package):
        return f"linux-headers-{match['what']}"
    return None
