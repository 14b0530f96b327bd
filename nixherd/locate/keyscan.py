"""Which host key each machine of the fleet shows: for comparing with hosts.nix, never for trusting it."""

import socket
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import paramiko

from nixherd.errors import FAILURES, Unforeseen
from nixherd.faults import worded
from nixherd.fleet.host_keys import HostKeys
from nixherd.fleet.models import Host
from nixherd.locate.reach import Epoch, Hints, look
from nixherd.proxmox.hypervisor import Hypervisor
from nixherd.ssh.keys import parse_public_key

AT_ONCE = 32
PATIENCE = 5.0  # seconds for a machine to answer and to show its key


@dataclass(frozen=True, slots=True)
class Shown:
    """The key that a machine shows, `TYPE BASE64`, and where; `problem` says why there is none to see."""

    host_id: str
    key: str | None = None
    address: str | None = None
    problem: str | None = None
    fault: bool = False
    """whether the problem is a mistake of ours"""

    def differs_from(self, pinned: str | None) -> bool:
        """Whether another key answers than the one that is pinned; what is not known differs from nothing."""
        if self.key is None or pinned is None:
            return False
        return parse_public_key(pinned).bare != self.key


def keys_shown(hypervisor: Hypervisor, keys: HostKeys, hosts: Iterable[Host]) -> dict[str, Shown]:
    """By host id, all asked at once; a machine that does not answer is no error."""
    wanted = list(hosts)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return {shown.host_id: shown for shown in pool.map(lambda host: _shown(hypervisor, keys, host), wanted)}


def _shown(hypervisor: Hypervisor, keys: HostKeys, host: Host) -> Shown:
    try:
        places = look(hypervisor, keys, host, Hints(), epochs=(Epoch.FINAL,), patience=0, progress=lambda line: None)
    except FAILURES as error:
        failure = worded(error, f"{host.id}: looking for it")
        return Shown(host.id, problem=str(failure).splitlines()[0], fault=isinstance(failure, Unforeseen))
    problem = "no installed system answers"
    for address in dict.fromkeys(place.address for place in places):
        try:
            return Shown(host.id, _key_at(address), address)
        except (OSError, paramiko.SSHException, EOFError) as error:
            problem = f"{address}: {error or type(error).__name__}"
    return Shown(host.id, problem=problem)


def _key_at(address: str, port: int = 22) -> str:
    with socket.create_connection((address, port), timeout=PATIENCE) as connection:
        transport = paramiko.Transport(connection)
        try:
            transport.get_security_options().key_types = ("ssh-ed25519",)
            transport.start_client(timeout=PATIENCE)
            key = transport.get_remote_server_key()
            return f"{key.get_name()} {key.get_base64()}"
        finally:
            transport.close()
