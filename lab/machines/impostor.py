"""A machine whose root claims to be another: its key, address, marker and boot, as any root can on any machine.

Its agent is not changed: it reports what it sees there.
"""

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lab.errors import LabError
from lab.machines.guest import Guest
from lab.machines.network import GUEST_INTERFACE, PREFIX

HOST_KEY = "/etc/ssh/ssh_host_ed25519_key.pub"
BOOT_ID = "/proc/sys/kernel/random/boot_id"
MARKERS = {
    "installer": "ID=nixos\nVARIANT_ID=installer\n",
    "clone": "ID=debian\n",
    "installed": "ID=nixos\n",
    "own": None,  # it describes its system truthfully
}

# $1: the other machine's key, $2: its address, $3: its boot_id, $4: os-release; each may be empty.
# With ARP off this machine never answers for the address that it took: packets to it reach the other machine.
_PRETEND = f"""
keep_original() {{ [ -e "$1.original" ] || mv "$1" "$1.original"; }}
if [ -n "$1" ]; then keep_original {HOST_KEY}; printf '%s\\n' "$1" >{HOST_KEY}; fi
if [ -n "$2" ]; then
  systemctl stop systemd-networkd.socket systemd-networkd.service
  ip link set {GUEST_INTERFACE} arp off
  ip address flush dev {GUEST_INTERFACE}
  ip address add "$2/{PREFIX}" dev {GUEST_INTERFACE}
fi
if [ -n "$3" ]; then
  [ -e /run/boot_id.original ] || cat {BOOT_ID} >/run/boot_id.original
  printf '%s\\n' "$3" >/run/boot_id.other
  umount {BOOT_ID}  # a file that is gone: nothing can be mounted on it
  mount --bind /run/boot_id.other {BOOT_ID}
fi
if [ -n "$4" ]; then
  keep_original /etc/os-release; printf '%s' "$4" >/etc/os-release
  if ! command -v cloud-init >/dev/null; then
    mount -t tmpfs tmpfs /usr/local/bin
    printf '#!/bin/sh\\n' >/usr/local/bin/cloud-init; chmod 755 /usr/local/bin/cloud-init
  fi
fi
"""
_BE_ITSELF = f"""
for file in {HOST_KEY} /etc/os-release; do [ ! -e $file.original ] || mv $file.original $file; done
while mountpoint -q /usr/local/bin; do umount /usr/local/bin; done
if [ -e /run/boot_id.original ]; then umount {BOOT_ID}; mount --bind /run/boot_id.original {BOOT_ID}; fi
ip address flush dev {GUEST_INTERFACE}
ip link set {GUEST_INTERFACE} arp on
systemctl start systemd-networkd.socket systemd-networkd.service
"""


@dataclass(frozen=True)
class Role:
    """What an impostor claims; by default everything. `marker` is one of MARKERS."""

    key: bool = True
    address: bool = True
    boot_id: bool = True
    marker: str = "installer"

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> "Role":
        """Parse the arguments; raises LabError for an unknown marker."""
        claims = {name: params[name] for name in ("key", "address", "boot_id", "marker") if name in params}
        if claims.get("marker", "own") not in MARKERS:
            raise LabError(f"impostor: unknown marker {claims['marker']}; known markers: {', '.join(MARKERS)}")
        return cls(**claims)


def pretend(guest: Guest, other: Guest, role: Role) -> None:
    """Make this guest claim to be the other one. Raises LabError."""
    key = _as_root(other, f"cat {HOST_KEY}") if role.key else ""
    boot_id = _as_root(other, f"cat {BOOT_ID}") if role.boot_id else ""
    address = address_of(other) if role.address else ""
    _as_root(guest, _PRETEND, key, address, boot_id, MARKERS[role.marker] or "")


def be_itself(guest: Guest) -> None:
    """Undo all of it. Raises LabError."""
    _as_root(guest, _BE_ITSELF)


def address_of(guest: Guest) -> str:
    """Return its IPv4 address on the bridge. Raises LabError while it has none."""
    for link in guest.plug.interfaces():
        for address in link.get("addr_info", []) if link["ifname"] == GUEST_INTERFACE else []:
            if address["family"] == "inet":
                return str(address["local"])
    raise LabError("impostor: that machine has no address yet")


def _as_root(guest: Guest, script: str, *arguments: str) -> str:
    try:
        argv = guest.command(["/bin/sh", "-ec", script, "sh", *arguments])
    except ProcessLookupError:
        raise LabError("impostor: that machine is not up") from None
    done = subprocess.run(argv, capture_output=True, text=True)
    if done.returncode:
        raise LabError(f"impostor: {done.stderr.strip() or done.returncode}")
    return done.stdout.strip()
