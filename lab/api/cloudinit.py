"""The cloud-init drive: its content, and changes that are not on it yet."""

import hashlib
import ipaddress
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

from lab.api import drives, options
from lab.api.formats import split_list
from lab.api.routes import Call, route
from lab.api.state import Config, State, Vm

_BASE = "/nodes/{node}/qemu/{vmid}/cloudinit"
# Keys that GET cloudinit lists even when nothing has changed.
_LISTED = ("cicustom", "cipassword", "citype", "ciuser", "nameserver", "searchdomain", "sshkeys")


def _names(vm: Vm) -> tuple[str, str]:
    """Return the host name and the fully qualified name."""
    name = str(vm.config.get("name") or f"VM{vm.vmid}")
    if "." in name:
        return name.split(".")[0], name
    domain = vm.config.get("searchdomain")
    return name, f"{name}.{domain}" if domain else name


def user_data(vm: Vm) -> str:
    """Return the drive's #cloud-config."""
    config, (hostname, fqdn) = vm.config, _names(vm)
    lines = ["#cloud-config", f"hostname: {hostname}", "manage_etc_hosts: true", f"fqdn: {fqdn}"]
    user = config.get("ciuser")
    if user:
        lines.append(f"user: {user}")
    if user == "root":
        lines.append("disable_root: False")
    if config.get("cipassword"):
        lines.append(f"password: {config['cipassword']}")
    if config.get("sshkeys"):
        keys = filter(str.strip, unquote(str(config["sshkeys"])).split("\n"))
        lines += ["ssh_authorized_keys:", *(f"  - {key}" for key in keys)]
    lines += ["chpasswd:", "  expire: False"]
    if user != "root":
        lines += ["users:", "  - default"]
    if int(config.get("ciupgrade", 1)):
        lines.append("package_upgrade: true")
    return "\n".join(lines) + "\n"


def _ipconfigs(config: Config) -> dict[int, dict[str, str]]:
    """Return the address settings by network card number; the default is DHCP."""
    cards = sorted(int(name[3:]) for name in config if options.is_network(name))
    settings = {}
    for number in cards:
        text = str(config.get(f"ipconfig{number}") or "ip=dhcp")
        settings[number] = dict(part.partition("=")[::2] for part in text.split(","))
    return settings


def _subnets(ipconfig: Mapping[str, str]) -> list[str]:
    lines = []
    ip, ip6 = ipconfig.get("ip"), ipconfig.get("ip6")
    if ip == "dhcp":
        lines.append("      - type: dhcp4")
    elif ip:
        interface = ipaddress.ip_interface(ip)
        lines += [
            "      - type: static",
            f"        address: '{interface.ip}'",
            f"        netmask: '{interface.netmask}'",
        ]
        lines += [f"        gateway: '{ipconfig['gw']}'"] if "gw" in ipconfig else []
    if ip6 == "dhcp":
        lines.append("      - type: dhcp6")
    elif ip6 == "auto":
        lines.append("      - type: ipv6_slaac")
    elif ip6:
        lines += ["      - type: static6", f"        address: '{ip6}'"]
        lines += [f"        gateway: '{ipconfig['gw6']}'"] if "gw6" in ipconfig else []
    return lines


def _dns(state: State, vm: Vm) -> tuple[list[str], list[str]]:
    """Return name servers and search domains: the VM's, or the node's if the VM has neither."""
    config, node = vm.config, state.nodes[vm.node]
    servers, domains = (split_list(str(config.get(key, ""))) for key in ("nameserver", "searchdomain"))
    return (servers, domains) if servers or domains else (list(node.get("dns", [])), list(node.get("search", [])))


def network_config(state: State, vm: Vm) -> str:
    """Return the network configuration in cloud-init's version 1 format."""
    lines = ["version: 1", "config:"]
    for number, ipconfig in _ipconfigs(vm.config).items():
        device = str(vm.config[f"net{number}"]).split(",")[0].partition("=")[2]
        lines += [
            "    - type: physical",
            f"      name: eth{number}",
            f"      mac_address: '{device.lower()}'",
            "      subnets:",
        ]
        lines += _subnets(ipconfig)
    servers, domains = _dns(state, vm)
    if servers or domains:
        lines.append("    - type: nameserver")
        lines += ["      address:", *(f"      - '{server}'" for server in servers)] if servers else []
        lines += ["      search:", *(f"      - '{domain}'" for domain in domains)] if domains else []
    return "\n".join(lines) + "\n"


def files(state: State, vm: Vm) -> dict[str, str]:
    """Return the drive's files by name."""
    user, network = user_data(vm), network_config(state, vm)
    instance = hashlib.sha1((user + network).encode()).hexdigest()
    return {"user-data": user, "meta-data": f"instance-id: {instance}\n", "network-config": network}


def warnings(config: Config) -> list[str]:
    """List the warnings about these settings that a start prints."""
    line = "gateway specified together with DHCP at /usr/share/perl5/PVE/QemuServer/Network.pm line 242."
    return [line for ipconfig in _ipconfigs(config).values() if ipconfig.get("ip") == "dhcp" and "gw" in ipconfig]


@route("GET", f"{_BASE}/dump")
def dump(call: Call) -> Any:
    vm = call.emulator.state.vm(call.vmid)
    names = {"user": "user-data", "network": "network-config", "meta": "meta-data"}
    return files(call.emulator.state, vm)[names[call.params["type"]]]


@route("GET", _BASE)
def pending(call: Call) -> Any:
    """Return the drive's current content and the content after it is regenerated."""
    vm = call.emulator.state.vm(call.vmid)
    hidden = {"cipassword": "**********"}

    def shown(name: str, value: Any) -> Any:
        return hidden.get(name, value)

    rows: list[dict[str, Any]] = []
    for name, before in sorted(vm.on_drive.items()):
        now = vm.config.get(name)
        row: dict[str, Any] = {"key": name, **({} if before is None else {"value": shown(name, before)})}
        rows.append({**row, "delete": 1} if now is None else {**row, "pending": shown(name, now)})
    listed = [name for name in _LISTED if name in vm.config and name not in vm.on_drive]
    return rows + [{"key": name, "value": shown(name, vm.config[name])} for name in listed]


@route("PUT", _BASE)
def regenerate(call: Call) -> Any:
    """Regenerate the drive now."""
    with call.emulator.locks.config(call.vmid):
        vm = call.emulator.state.vm(call.vmid)
        call.emulator.require_unlocked(vm)
        if drives.cloudinit_of(vm.config):
            vm.on_drive.clear()
