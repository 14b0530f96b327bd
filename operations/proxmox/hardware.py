"""A guest's options and devices."""

from collections.abc import Mapping, Sequence

from pyinfra import host
from pyinfra.api import operation

from nixherd.errors import Usage
from nixherd.proxmox.config import encode_ssh_keys
from nixherd.proxmox.guest import actions, names
from nixherd.proxmox.guest.identity import marked
from nixherd.proxmox.guest.undo import reversible
from nixherd.proxmox.steps import Row
from nixherd.settings import Device
from nixherd.ssh_keys import parse_authorized_key
from operations.arguments import flag_of, names_of, options_of, text_of, text_or_none, whole
from operations.proxmox.acting import act, guest_of
from operations.proxmox.provisioning import cloud_init_row, row
from operations.steps import Commands, decide, session_of

_NUMBERS = ("cores", "sockets", "memory", "balloon")
_WORDS = ("cpu", "machine", "bios", "startup")
_FLAGS = ("onboot", "protection")


@operation()
def configure(
    cores: int | None = None,
    sockets: int | None = None,
    memory: int | None = None,
    balloon: int | None = None,
    cpu: str | None = None,
    machine: str | None = None,
    bios: str | None = None,
    boot: Sequence[str] | str | None = None,
    agent: bool | None = None,
    tags: Sequence[str] | str | None = None,
    description: str | None = None,
    onboot: bool | None = None,
    startup: str | None = None,
    protection: bool | None = None,
    unset: Sequence[str] | str | None = None,
    snapshot: str | None = None,
) -> Commands:
    """Set these options, those in `unset` taken away; without any, what the definitions declare.

    `memory` and `balloon` are MiB, `boot` devices in their order, `startup` as in `order=2,up=30`. What a running guest
    takes up later waits for a `reboot`.
    """
    given = options_of({
        **{"cores": cores, "sockets": sockets, "memory": memory, "balloon": balloon, "cpu": cpu, "machine": machine},
        **{"bios": bios, "boot": boot, "agent": agent, "tags": tags, "description": description, "onboot": onboot},
        **{"startup": startup, "protection": protection},
    })  # fmt: skip
    if not given and unset is None:
        yield from decide(host, lambda: row(Row.CONFIGURE))
        return
    yield from act(host, lambda: reversible(actions.configure(_values(given, unset)), snapshot))


def _values(given: dict[str, object], unset: Sequence[str] | str | None) -> dict[str, object]:
    """The options as the API takes them. Usage for one that cannot be meant."""
    values: dict[str, object] = {}
    for key, value in given.items():
        if key in _NUMBERS:
            number = whole(key, value, 0 if key == "balloon" else 1)
            values[key] = str(number) if key == "memory" else number
        elif key in _WORDS:
            values[key] = text_of(key, value)
        elif key in _FLAGS:
            values[key] = flag_of(key, value)
        elif key == "agent":
            values[key] = f"enabled={int(flag_of(key, value))}"
        elif key == "boot":
            order = names_of(key, value)
            names.require_boot_order(order)
            values[key] = f"order={';'.join(order)}"
        elif key == "tags":
            values[key] = ";".join(names_of(key, value))
        else:
            values[key] = marked(session_of(host).fleet, guest_of(host), str(value))
    for key in names_of("unset", unset) if unset is not None else ():
        if key in values:
            raise Usage(f"{key} is both set and in unset; say one of them")
        values[key] = None
    return values


@operation()
def network(
    device: str = "net0",
    bridge: str | None = None,
    model: str | None = None,
    tag: int | None = None,
    firewall: bool | None = None,
    mac: str | None = None,
    mtu: int | None = None,
    rate: float | None = None,
    present: bool = True,
) -> Commands:
    """Give the guest a network card with these properties, the others as they are; `present=False`: take it away."""
    given = {
        "bridge": bridge,
        "model": model,
        "tag": tag,
        "firewall": firewall,
        "macaddr": mac,
        "mtu": mtu,
        "rate": rate,
    }
    yield from act(host, lambda: _device("net", device, given, present))


@operation()
def pci(
    device: str = "hostpci0",
    mapping: str | None = None,
    pcie: bool | None = None,
    x_vga: bool | None = None,
    rombar: bool | None = None,
    present: bool = True,
) -> Commands:
    """Pass a PCI device through by the name of a mapping of the cluster; or take it away (`present=False`)."""
    given = {"mapping": mapping, "pcie": pcie, "x-vga": x_vga, "rombar": rombar}
    yield from act(host, lambda: _device("hostpci", device, given, present))


def _device(family: str, name: str, given: Mapping[str, object], present: bool) -> actions.Action:
    names.require_device(family, text_of("device", name))
    if not flag_of("present", present):
        return actions.configure({name: None})
    values = {key: _property(key, value) for key, value in options_of(given).items()}
    if not values or (family == "hostpci" and "mapping" not in values):
        raise Usage(f"{name}: say what it is to have: {'a mapping' if family == 'hostpci' else 'a bridge, a tag, …'}")
    return actions.device(Device(name, values))


def _property(key: str, value: object) -> str:
    text = str(int(value)) if isinstance(value, bool) else text_of(key, str(value))
    if "," in text or "=" in text:
        raise Usage(f"{key}={value} is no value for it")
    return text


@operation()
def cloud_init(
    user: str | None = None,
    keys: Sequence[str] | None = None,
    addresses: Mapping[str, str] | None = None,
    nameserver: str | None = None,
    search_domain: str | None = None,
    upgrade: bool | None = None,
) -> Commands:
    """Set these of the cloud-init options, or without any what the definitions say: who may log in, and DHCP.

    `keys` are lines of `.pub` files, `addresses` as in `{"ipconfig0": "ip=10.0.0.5/24,gw=10.0.0.1"}`. A running VM has
    them on its drive after `regenerate_cloud_init`. There is no password: it would be in arguments and logs.
    """
    given = options_of({"user": user, "keys": keys, "addresses": addresses, "nameserver": nameserver,
                        "search_domain": search_domain, "upgrade": upgrade})  # fmt: skip
    if not given:
        yield from decide(host, cloud_init_row)
        return
    yield from act(host, lambda: actions.configure(_cloud_init_values(given)))


def _cloud_init_values(given: dict[str, object]) -> dict[str, object]:
    """The options as the API takes them. Usage for one that cannot be meant."""
    values: dict[str, object] = {}
    for key, value in given.items():
        if key == "keys":
            values["sshkeys"] = encode_ssh_keys(_keys(value))
        elif key == "addresses":
            values |= _addresses(value)
        elif key == "upgrade":
            values["ciupgrade"] = flag_of(key, value)
        else:
            names = {"user": "ciuser", "search_domain": "searchdomain"}
            values[names.get(key, key)] = text_of(key, value)
    return values


def _keys(value: object) -> list[str]:
    if not isinstance(value, (list, tuple)) or not value:
        raise Usage("keys is no list of public keys")
    for key in value:
        try:
            parse_authorized_key(str(key))
        except ValueError as error:
            raise Usage(f"keys: no SSH public key: {error}") from None
    return [str(key) for key in value]


def _addresses(value: object) -> dict[str, object]:
    if not isinstance(value, Mapping) or not value:
        raise Usage('addresses is no mapping; write {"ipconfig0": "ip=dhcp"}')
    for name, text in value.items():
        if (
            not names.is_device("ipconfig", str(name))
            or not isinstance(text, str)
            or not text.startswith(("ip=", "ip6=", "gw=", "gw6="))
        ):
            raise Usage(f"addresses: {name}={text} is none; write ipconfig0 and ip=dhcp")
    return dict(value)


@operation()
def cloud_init_drive(device: str = "ide2", storage: str | None = None) -> Commands:
    """Give the VM a cloud-init drive, unless it has one; on its own storage unless another is named."""

    def action() -> actions.Action:
        place = text_or_none("storage", storage)
        return actions.cloudinit_drive(text_of("device", device), storage=place)

    yield from act(host, action)


@operation()
def regenerate_cloud_init() -> Commands:
    """Write the cloud-init drive anew where the options say something else than it."""
    yield from act(host, actions.regenerate)
