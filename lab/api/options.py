"""The options of a VM's configuration: who may set them, which take effect at once, and how values are normalised."""

import base64
import binascii
import itertools
import re
import secrets
import struct
import uuid
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from lab.api.drives import is_drive
from lab.api.errors import ApiError
from lab.api.formats import parse_property_string, split_list

if TYPE_CHECKING:
    from lab.api.permissions import User
    from lab.api.routes import Call

_PRIVILEGES = {
    "VM.Config.CPU": ("affinity cores cpu cpulimit cpuunits smp sockets vcpus numa",),
    "VM.Config.Memory": ("memory balloon shares hugepages keephugepages allow-ksm",),
    "VM.Config.HWType": (
        "acpi hotplug kvm machine scsihw smbios1 tablet vga watchdog audio0 rng0",
        "ivshmem spice_enhancements amd-sev intel-tdx",
    ),
    "VM.Config.Options": (
        "agent autostart bios description keyboard localtime migrate_downtime migrate_speed name",
        "onboot ostype protection reboot startdate template tags",
    ),
    "VM.PowerMgmt": ("freeze",),
    "VM.Config.Disk": ("boot bootdisk vmstatestorage",),
}
_PRIVILEGE_OF = {option: privilege for privilege, lines in _PRIVILEGES.items() for option in " ".join(lines).split()}
CLOUDINIT = {"cicustom", "cipassword", "citype", "ciuser", "ciupgrade", "nameserver", "searchdomain", "sshkeys"}
# Options that a running VM applies at once.
IMMEDIATE = {
    *("description", "hookscript", "lock", "name", "onboot", "protection", "shares", "startup", "tags"),
    *("affinity", "cpulimit", "cpuunits", "vmstatestorage"),
}


# In a configuration, but not a parameter of a change.
_INTERNAL = {"meta", "parent", "runningcpu", "runningmachine", "snapstate", "snaptime", "vmstate"}
# Parameters of a change that are not stored.
_META = {"background_delay", "delete", "digest", "force", "node", "revert", "skiplock", "vmid"}


def exists(call: "Call", option: str) -> bool:
    """Return whether an option of that name exists, whoever may set it."""
    known = option in _INTERNAL or is_unused(option) or call.emulator.schema.config_property(option)
    return bool(known) and option not in _META


def is_network(option: str) -> bool:
    return re.fullmatch(r"net\d+", option) is not None


def is_mapped(option: str, value: Any) -> bool:
    """Return whether the device is given by the name of a mapping."""
    return re.fullmatch(r"(hostpci|usb)\d+", option) is not None and "mapping=" in str(value)


def is_unused(option: str) -> bool:
    return re.fullmatch(r"unused\d+", option) is not None


def is_cloudinit(option: str) -> bool:
    """Return whether the option affects the content of the cloud-init drive."""
    return option in CLOUDINIT or re.fullmatch(r"ipconfig\d+", option) is not None


def require_privileges(call: "Call", vmid: int, options: Iterable[str], pool: str | None = None) -> None:
    """Raise PermissionDenied or ApiError if the user may not set or delete one of these options.

    Drives are checked later, by their kind. In a pool, the privilege on the pool or on the guest is enough.
    """
    if call.user.is_root:
        return

    def allowed(user: "User", path: str, privileges: list[str], *, any_of: bool = False) -> None:
        permissions = call.emulator.permissions
        if not (path != "/" and pool and permissions.allowed(user, f"/pool/{pool}", privileges, any_of=any_of)):
            permissions.require(user, path, privileges, any_of=any_of)

    path = f"/vms/{vmid}"
    for option in options:
        if is_drive(option) or is_unused(option):
            continue
        if re.fullmatch(r"(serial|usb|parallel|hostpci)\d+", option):
            allowed(call.user, path, ["VM.Config.HWType"])
        elif is_network(option):
            allowed(call.user, path, ["VM.Config.Network"])
        elif is_cloudinit(option):
            allowed(call.user, path, ["VM.Config.Cloudinit", "VM.Config.Network"], any_of=True)
        elif option.startswith("numa"):
            allowed(call.user, path, ["VM.Config.CPU"])
        elif option == "startup":
            allowed(call.user, "/", ["Sys.Modify"])
        elif option in _PRIVILEGE_OF:
            allowed(call.user, path, [_PRIVILEGE_OF[option]])
        else:
            raise ApiError(f"only root can set '{option}' config")


def require_mapping(call: "Call", option: str, value: str) -> None:
    """Require that a mapped device exists on this node and that the user may use it."""
    name = re.search(r"mapping=([^,]+)", value)
    assert name is not None
    call.emulator.permissions.require(call.user, f"/mapping/pci/{name[1]}", ["Mapping.Use"])
    if option.startswith("hostpci"):
        mapping = call.emulator.state.pci_mappings.get(name[1])
        if mapping is None:
            raise ApiError(f"PCI device mapping '{name[1]}' not found")
        node = call.emulator.state.name_of(call.params.get("node"))
        if not any(f"node={node}" in str(entry).split(",") for entry in mapping.get("map", [])):
            raise ApiError(f"PCI device mapping '{name[1]}' is not available on node '{node}'")


def require_devices(call: "Call", params: dict[str, Any]) -> None:
    """Require root for raw host devices, SDN.Use for a bridge, Mapping.Use for a mapped device."""
    for option, value in params.items():
        if is_mapped(option, value):
            require_mapping(call, option, str(value))
        if re.fullmatch(r"serial\d+", option) and value != "socket" and not call.user.is_root:
            raise ApiError(f"only root can modify '{option}' config for real devices")
        if (
            re.fullmatch(r"(usb|hostpci|parallel)\d+", option)
            and not call.user.is_root
            and "mapping=" not in str(value)
        ) and not str(value).startswith("spice"):
            kind = "non-mapped" if option.startswith("hostpci") else "real"
            raise ApiError(f"only root can set '{option}' config for {kind} devices")
        if is_network(option):
            card = network(call, option, str(value))
            if card.get("bridge"):
                path = "/".join(filter(None, ["/sdn/zones/localnetwork", card["bridge"], card.get("tag")]))
                call.emulator.permissions.require(call.user, path, ["SDN.Use"])


def new_mac() -> str:
    """Return an address from Proxmox' prefix."""
    return "BC:24:11:" + ":".join(f"{byte:02X}" for byte in secrets.token_bytes(3))


def network(call: "Call", option: str, value: str) -> dict[str, str]:
    """Return a network device's properties, `model` and possibly `macaddr` among them."""
    prop = call.emulator.schema.config_property(option)
    return parse_property_string(prop["format"] if prop else {}, value, option)


def write_network(device: dict[str, str]) -> str:
    """Format the device like the configuration: `virtio=MAC,bridge=vmbr0`."""
    rest = [f"{key}={device[key]}" for key in sorted(device) if key not in ("model", "macaddr")]
    return ",".join([f"{device['model']}={device['macaddr']}", *rest])


def new_smbios() -> str:
    return f"uuid={uuid.uuid4()}"


def with_new_uuid(smbios: str) -> str:
    """Return the same SMBIOS fields with a new UUID."""
    rest = [part for part in smbios.split(",") if not part.startswith("uuid=")]
    return ",".join([new_smbios(), *filter(None, rest)])


def normalised_tags(text: str) -> str:
    return ";".join(sorted({tag.lower() for tag in split_list(text)}))


def require_ssh_keys(encoded: str) -> None:
    """Raise ApiError unless every line of the URL-encoded text is a public key."""
    lines = [line for line in unquote(encoded).splitlines() if line.strip() and not line.startswith("#")]
    if not lines or not all(map(_is_public_key, lines)):
        raise ApiError("SSH public key validation error")


def _is_public_key(line: str) -> bool:
    words = line.split()
    for kind, blob in itertools.pairwise(words):
        if re.match(r"(ssh|ecdsa|sk)-", kind):
            try:
                raw = base64.b64decode(blob, validate=True)
            except binascii.Error:
                return False
            name = kind.encode()
            return raw.startswith(struct.pack(">I", len(name)) + name)
    return False
