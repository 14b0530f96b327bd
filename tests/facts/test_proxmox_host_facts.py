"""Facts of nodes: each command run for real by sh on this machine, and what of a node's words becomes of them."""

import base64
import subprocess
from pathlib import Path
from typing import Any

import pytest
from pyinfra.api.exceptions import FactProcessError

from nixherd.facts.proxmox_host import Boot, Dkms, Kernels, Modules, Node, Pci
from nixherd.proxmox.node.states import GRUB


def packed(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def read(fact: Any) -> Any:
    done = subprocess.run(["sh", "-c", fact.command()], capture_output=True, text=True, timeout=20, check=False)
    return fact.process(done.stdout.splitlines())


def test_this_machine_says_what_it_is() -> None:
    node = read(Node())
    assert node["hostname"] == Path("/proc/sys/kernel/hostname").read_text().strip()
    assert node["kernel"] == Path("/proc/sys/kernel/osrelease").read_text().strip()
    assert node["booted"] > 0
    assert f"\nvendor_id\t: {node['vendor']}\n" in Path("/proc/cpuinfo").read_text() or node["vendor"] is None
    boot = read(Boot())
    assert boot["command_line"] == Path("/proc/cmdline").read_text().strip()
    assert [kernel["version"] for kernel in boot["kernels"]] == sorted(
        path.name.removeprefix("vmlinuz-") for path in Path("/boot").glob("vmlinuz-*")
    )
    devices = {path.name for path in Path("/sys/bus/pci/devices").glob("*")}
    assert {device["address"] for device in read(Pci())["devices"]} == devices
    assert set(read(Modules())["loaded"]) >= {path.name for path in Path("/sys/module").glob("*")}
    assert read(Dkms())["conf"] is None
    assert isinstance(read(Kernels()), list)


BOOT = [
    "running=quiet a=b",
    "tool=",
    "esps=1",
    "unknown=0",
    f"entries={packed('linux /boot/vmlinuz-6 root=x quiet')}",
    "entries_time=1764000000",
    f"text.{GRUB}={packed('GRUB_DEFAULT=0')}",
    f"effective={packed('quiet')}",
    "grub_default=0",
    "pinned=",
    "kernel.6.14.8-2-pve=proxmox-kernel-6.14.8-2-pve-signed yes 1764000000",
    "kernel.6.8.12-4-pve= no none",
    "notes=boot-loader ",
]


def changed(key: str, value: str) -> list[str]:
    return [f"{key}={value}" if line.startswith(f"{key}=") else line for line in BOOT]


def test_what_boots_a_node() -> None:
    boot = Boot().process(BOOT)
    assert boot["entries"] == ["linux /boot/vmlinuz-6 root=x quiet"]
    assert boot["notes"] == ["boot-loader"]
    assert boot["kernels"] == [
        {"version": "6.8.12-4-pve", "package": None, "headers": False, "initrd": None},
        {
            "version": "6.14.8-2-pve",
            "package": "proxmox-kernel-6.14.8-2-pve-signed",
            "headers": True,
            "initrd": 1764000000,
        },
    ]
    for key, value in (("unknown", "1"), ("esps", "0"), ("entries", "")):
        assert Boot().process(changed(key, value))["entries"] is None  # which is not: none of them
    for lines in (BOOT[1:], changed("entries", "?"), ["kernel.6=x", *BOOT]):
        with pytest.raises(FactProcessError):
            Boot().process(lines)


def test_secure_boot_is_known_or_not() -> None:
    plain = ["id=debian", "like=", "pve=9.0.3", "hostname=prom", "uid=0", "vendor=x", "kernel=6", "booted=1"]
    for said_of_it, known in (
        ("secure_boot= 6 0 0 0 1", True),
        ("secure_boot= 6 0 0 0 0", False),
        ("secure_boot=", None),
    ):
        assert Node().process([*plain, said_of_it])["secure_boot"] is known
