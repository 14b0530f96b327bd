"""Whether the machine that answers over SSH is the guest that was asked: what it shows, and what its agent tells."""

import ipaddress
import socket
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nixherd.base.errors import FleetError, Refused
from nixherd.base.names import MAC, is_a
from nixherd.base.ssh_keys import HOST_KEY_FILE, parse_public_key
from nixherd.fleet.host_keys import HostKeys
from nixherd.fleet.models import Vm
from nixherd.proxmox.config import VmConfig, properties
from nixherd.proxmox.guest.identity import label
from nixherd.proxmox.hypervisor import Hypervisor

PLANTED = "/run/nixherd-proof"  # and a name after it

_LOOK = Path(__file__).with_name("proof.sh").read_text(encoding="utf-8")

# What is told to a VM through its agent, by its root's hands, and read back over SSH: stdin is a name and a word.
PLANT = f"""\
umask 077; set -C
read -r name word && printf "%s\\n" "$word" >"{PLANTED}.$name"
"""


_LOOK_THERE = "nothing was sent there: find out who is root in that guest"


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
        cards = ", ".join(sorted(mac for mac in shown.macs if is_a(MAC, mac))) or "none"
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
    return f"{PLANTED}.{name}"


def told_key(hypervisor: Hypervisor, keys: HostKeys, host_id: str, guest: Asked, *, for_good: bool) -> str:
    """The host key that the agent tells. Refused when it is another host's.

    `for_good`: it is this guest's in this run, and no other's. Until cloud-init is done clones share the template's.
    """
    key = hypervisor.client.agent_read(guest.node, guest.vmid, HOST_KEY_FILE).strip()
    try:
        parsed = parse_public_key(key)
    except ValueError as error:
        raise FleetError(f"{guest.label}: what its agent tells as its host key is none: {error}") from None
    if parsed.type != "ssh-ed25519":
        raise Refused(f"{guest.label}: its agent tells an ed25519 host key of type {parsed.type}; {_LOOK_THERE}")
    whose = keys.owner(key, but=host_id)
    if whose is None and for_good:
        first = keys.first_to_tell(parsed.fingerprint, guest.label)
        whose = first if first != guest.label else None
    if whose:
        what = f"its agent tells the host key of {whose} as its own ({parsed.fingerprint})"
        raise Refused(f"{guest.label}: {what}; {_LOOK_THERE}")
    return key


def require_a_guests(hypervisor: Hypervisor, guest: Asked, address: str) -> None:
    """Refused when the address that a guest names is the hypervisor's or our own."""
    if whose := owner_of_address(hypervisor.addresses, address, guest.mac):
        raise Refused(f"{guest.label}: its agent tells {address} as its address, which {whose} has; {_LOOK_THERE}")


def owner_of_address(hypervisors: Mapping[str, str], address: str, mac: str | None) -> str | None:
    """Whose an address is that cannot be the guest's with this MAC: the hypervisor's, or our own; None otherwise.

    Ours is right where we run in that very guest.
    """
    parsed = ipaddress.ip_address(address)
    if parsed.is_loopback or parsed.is_link_local:
        return None  # no guest is believed to have one; the other is on one link alone
    whose = hypervisors.get(address)
    if whose is None and has_address(address) and not (mac and has_mac(mac)):
        whose = "the machine that this runs on"
    return whose


def has_address(address: str) -> bool:
    """Whether this address is one of our own. Nothing is sent: the kernel says from where it would send there."""
    family = socket.AF_INET6 if ipaddress.ip_address(address).version == 6 else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((address, 9))
            return ipaddress.ip_address(probe.getsockname()[0]) == ipaddress.ip_address(address)
    except OSError:  # no way there, or a broadcast address
        return False


def has_mac(mac: str) -> bool:
    """Whether one of our network cards has this MAC, in lower case."""
    found = set()
    for file in Path("/sys/class/net").glob("*/address"):
        try:
            found.add(file.read_text().strip().lower())
        except OSError:
            continue
    return mac in found
