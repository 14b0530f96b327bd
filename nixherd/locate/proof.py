"""Whether the machine that answers over SSH is the guest that was asked. Pure: texts and values in, a reason out.

Where a VM is, what runs there and which host key it has is the word of whoever is root in it. What is not is its
configuration: net0's MAC and the SMBIOS UUID. The machine that answers says which cards, which UUID and which boot it
has; the boot is compared with the one that the agent of that very VM tells.
"""

import re
import uuid
from dataclasses import dataclass
from pathlib import Path

from nixherd.fleet.models import Vm
from nixherd.proxmox.config import VmConfig, properties
from nixherd.proxmox.guest.identity import label

BOOT_ID = "/proc/sys/kernel/random/boot_id"
NAME = "nixherd-proof"

_LOOK = Path(__file__).with_name("proof.sh").read_text(encoding="utf-8")
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")

# What is told to a VM through its agent, by its root's hands, and read back over SSH: stdin is a name and a word.
PLANT = f"""\
umask 077; set -C
read -r name word && printf "%s\\n" "$word" >"/run/{NAME}.$name"
"""


@dataclass(frozen=True, slots=True)
class Asked:
    """The guest that was asked where it is. `mac` is net0's, in lower case; None is not known, and not compared."""

    label: str
    node: str
    vmid: int
    mac: str | None
    uuid: str | None = None
    has_agent: bool = True

    @classmethod
    def of(cls, vm: Vm, node: str, config: VmConfig, *, has_agent: bool = True) -> "Asked":
        card = config.nets.get("net0")
        smbios = properties(config.text("smbios1") or "", "uuid").get("uuid")
        return cls(label(vm), node, vm.vmid, card.mac if card else None, smbios, has_agent)


@dataclass(frozen=True, slots=True)
class Shown:
    """What the machine that answers says over SSH; `uuid` is None where its kernel shows none, or not to us."""

    boot_id: str
    macs: frozenset[str]
    uuid: str | None
    os_release: str


def look(token: str) -> str:
    """The script that a machine answers with a `Shown`; `token` marks its lines among those of a talkative shell."""
    return _LOOK.replace("TOKEN", token)


def parse(output: str, token: str) -> Shown | None:
    """What the script said; None when it did not come to its end."""
    found: dict[str, list[str]] = {}
    for line in output.splitlines():
        mark, _, rest = line.partition(" ")
        if mark == token:
            key, _, value = rest.partition(" ")
            found.setdefault(key, []).append(value)
    if "end" not in found or not found.get("boot_id", [""])[0]:
        return None
    return Shown(
        boot_id=found["boot_id"][0].strip(),
        macs=frozenset(mac.strip().lower() for mac in found.get("mac", ()) if mac.strip("0: ")),
        uuid=found["uuid"][0].strip() if "uuid" in found else None,
        os_release="\n".join(found.get("release", ())),
    )


def disproof(guest: Asked, shown: Shown) -> str | None:
    """Why this machine, by its cards and its UUID, is not the guest; None when it may be."""
    if guest.mac is not None and guest.mac not in shown.macs:
        cards = ", ".join(sorted(filter(_MAC.fullmatch, shown.macs))) or "none"
        return f"no card of it has net0's MAC {guest.mac} (there are: {cards})"
    expected, found = _uuid(guest.uuid), _uuid(shown.uuid)
    # an older SMBIOS has its first three fields in the other order of bytes
    if expected and found and expected not in (found, uuid.UUID(bytes_le=found.bytes)):
        return f"its SMBIOS UUID is {found}, not {expected}"
    return None


def _uuid(text: str | None) -> uuid.UUID | None:
    """None also for what firmware shows that has none (`Not Settable`, only zeros)."""
    try:
        found = uuid.UUID(text or "")
    except ValueError:
        return None
    return found if found.int not in (0, (1 << 128) - 1) else None


def planted(name: str) -> str:
    """Where the word is that PLANT wrote under this name; for root alone."""
    return f"/run/{NAME}.{name}"
