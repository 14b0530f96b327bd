"""Machines that somebody else made: Debian, cloned through the API, which the fleet's definitions do not know."""

from typing import Any
from urllib.parse import quote

from lab.errors import LabError
from tests.integration.lab_driver import Lab, until

HOST_KEY_FILE = "/etc/ssh/ssh_host_ed25519_key.pub"
_NODE = "/nodes/prom/qemu"


def make_debian(lab: Lab, vmid: int, name: str, **options: str) -> tuple[str, str]:
    """A running machine with the operator's key for the user abl030: its address, and the host key that it shows.

    `options` are further ones of the clone, such as its pool.
    """
    key = (lab.state / "home/.ssh/id_ed25519.pub").read_text().strip()
    lab.api_task(f"{_NODE}/9002/clone", newid=vmid, name=name, full=1, storage="nvmeprom", **options)
    lab.api_task(f"{_NODE}/{vmid}/resize", "PUT", disk="scsi0", size="16G")
    lab.api(f"{_NODE}/{vmid}/config", "PUT", ciuser="abl030", sshkeys=quoted(key), ipconfig0="ip=dhcp")
    lab.api_task(f"{_NODE}/{vmid}/status/start")
    return until(lambda: address_of(lab, vmid), 30, "an address"), until(lambda: _host_key(lab, vmid), 30, "cloud-init")


def quoted(key: str) -> str:
    return quote(f"{key}\n", safe="")


def agent(lab: Lab, vmid: int, command: str) -> Any:
    """What the guest's agent says; None while it is not there."""
    try:
        return lab.api(f"{_NODE}/{vmid}/agent/{command}")
    except LabError:
        return None


def address_of(lab: Lab, vmid: int) -> str | None:
    output = agent(lab, vmid, "network-get-interfaces") or {"result": []}
    found = [
        address["ip-address"]
        for card in output["result"]
        for address in card.get("ip-addresses", [])
        if address["ip-address"].startswith("10.77.")
    ]
    return found[0] if found else None


def _host_key(lab: Lab, vmid: int) -> str | None:
    """Its own key, once cloud-init has made it: until then it shows the one that all clones share."""
    if agent(lab, vmid, "file-read?file=/run/cloud-init/result.json") is None:
        return None
    return str(agent(lab, vmid, f"file-read?file={HOST_KEY_FILE}")["content"]).strip()
