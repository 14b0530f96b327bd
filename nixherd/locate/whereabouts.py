"""At which addresses a guest may be found without its agent: what is declared, and where its network card was seen.

Every one of them is a place to try, no more: whoever answers there is known by the pinned key.
"""

import ipaddress
import secrets
from collections.abc import Mapping

from nixherd.errors import FleetError
from nixherd.fleet.models import GuestType, Vm
from nixherd.locate import neighbours
from nixherd.locate.neighbours import Neighbour
from nixherd.process import run
from nixherd.proxmox.config import VmConfig, properties
from nixherd.proxmox.guest.identity import plain_address, usable_address
from nixherd.session import Session

MOST = 8  # addresses of one card that are tried
RECENT = 5.0  # seconds for which what a machine told of its neighbours is not asked again
_HERE_TIMEOUT = 10.0  # seconds


def declared(vm: Vm) -> list[str]:
    """The addresses on net0 that the definitions give a guest; none where it takes what DHCP gives it."""
    return _fixed(_as_declared(vm))


def configured(vm: Vm, config: VmConfig) -> list[str]:
    """The same by the guest's configuration on the hypervisor."""
    return _fixed(_as_configured(vm, config))


def gateways(vm: Vm, config: VmConfig | None = None) -> frozenset[str]:
    """The addresses of its routers on net0, as declared and, where it is seen, as configured: none is its own."""
    found = [_as_declared(vm), _as_configured(vm, config) if config else {}]
    written = (plain_address(values[name]) for values in found for name in ("gw", "gw6") if name in values)
    return frozenset(address for address in written if address is not None)


def _as_declared(vm: Vm) -> Mapping[str, str]:
    if vm.type is GuestType.LXC:
        return next((card.values for card in vm.settings.networks if card.name == "net0"), {})
    return _ipconfig(vm.settings.cloud_init.addresses.get("ipconfig0"))


def _as_configured(vm: Vm, config: VmConfig) -> Mapping[str, str]:
    return _ipconfig(config.text("net0" if vm.type is GuestType.LXC else "ipconfig0"))


def _ipconfig(text: str | None) -> Mapping[str, str]:
    return properties(text or "", "ip")


def _fixed(values: Mapping[str, str]) -> list[str]:
    found = (usable_address(values.get(name, "")) for name in ("ip", "ip6"))
    return [str(address) for address in found if address is not None]


def seen_from_here(session: Session, mac: str) -> list[str]:
    """Where this machine has seen the card: nothing is sent, the kernel and the leases that are here are read."""
    found = neighbours.of(mac, session.lately("neighbours of this machine", RECENT, _ours))
    return list(dict.fromkeys(address for each in found if (address := _from_here(each))))[:MOST]


def seen_elsewhere(mac: str, told: tuple[Neighbour, ...]) -> list[str]:
    """Where another machine has seen it, as far as that is of use here: link-local addresses are not."""
    found = (usable_address(each.address) for each in neighbours.of(mac, told))
    return list(dict.fromkeys(str(address) for address in found if address is not None))[:MOST]


def _from_here(each: Neighbour) -> str | None:
    address = ipaddress.ip_address(each.address)
    if address.version == 6 and address.is_link_local:
        return f"{address}%{each.card}" if each.card else None
    found = usable_address(each.address)
    return str(found) if found else None


def _ours() -> tuple[Neighbour, ...]:
    token = secrets.token_hex(8)
    try:
        said = run(["sh", "-c", neighbours.look(token)], timeout=_HERE_TIMEOUT, check=False).stdout
    except FleetError:
        return ()
    return neighbours.parse(said, token) or ()
