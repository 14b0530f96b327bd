"""Which host keys machines show: to compare them with hosts.nix, and to find a machine by its key; never to trust them.

A network is searched at port 22 alone, slowly, and only where the definitions say so. An address answers or not; of
those that do, `ssh-keyscan` reads the host key, and no more than the one whose key is the pinned one is ever logged in
to. Nothing but a TCP connection and a key exchange is sent.
"""

import ipaddress
import socket
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import paramiko

from nixherd.base.errors import FAILURES, Unforeseen
from nixherd.base.process import run
from nixherd.base.ssh_keys import parse_public_key, same_key
from nixherd.base.terminal import worded
from nixherd.fleet.host_keys import HostKeys
from nixherd.fleet.models import Host
from nixherd.locate.reach import Epoch, Hints, Look, look
from nixherd.proxmox.hypervisor import Hypervisor

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
    """By host id, all asked at once; a machine that does not answer is not an error."""
    machines = list(hosts)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return {shown.host_id: shown for shown in pool.map(lambda host: _shown(hypervisor, keys, host), machines)}


def _shown(hypervisor: Hypervisor, keys: HostKeys, host: Host) -> Shown:
    try:
        places = look(hypervisor, keys, host, Hints(), Look((Epoch.FINAL,), tuple(Epoch)))
    except FAILURES as error:
        failure = worded(error, f"{host.id}: looking for it")
        return Shown(host.id, problem=str(failure).splitlines()[0], fault=isinstance(failure, Unforeseen))
    if host.jump:
        return Shown(host.id, problem=f"is reached through {', '.join(host.jump)}: its key was not looked at")
    problem = "no installed system answers"
    for address in dict.fromkeys(place.address for place in places):
        try:
            return Shown(host.id, key_at(address, host.port or PORT), address)
        except (OSError, paramiko.SSHException, EOFError) as error:
            problem = f"{address}: {error or type(error).__name__}"
    return Shown(host.id, problem=problem)


PORT = 22


def key_at(address: str, port: int = PORT) -> str:
    """The ed25519 key that is shown at an address, `TYPE BASE64`: who shows it is not known. OSError, SSHException."""
    with socket.create_connection((address, port), timeout=PATIENCE) as connection:
        return key_on(connection)


def key_on(connection: socket.socket) -> str:
    """The same of what answers on a connection."""
    transport = paramiko.Transport(connection)
    try:
        transport.get_security_options().key_types = ("ssh-ed25519",)
        transport.start_client(timeout=PATIENCE)
        key = transport.get_remote_server_key()
        return f"{key.get_name()} {key.get_base64()}"
    finally:
        transport.close()


SEARCH_AGAIN = 60.0  # seconds after which a network may be searched once more
MOST_SEARCHES = 3  # of one network in a run
_AT_ONCE = 32
_PER_SECOND = 100
_TIMEOUT = 1.0  # seconds for an address to answer
_KEY_TIMEOUT = 5  # seconds for it to show its key


def addresses_in(networks: Iterable[str], but: Collection[str]) -> list[str]:
    """The addresses of machines in these networks, each once, but those."""
    found = (str(each) for network in networks for each in ipaddress.IPv4Network(network).hosts())
    return [address for address in dict.fromkeys(found) if address not in but]


def listening(addresses: Sequence[str]) -> list[str]:
    """Those of the addresses at which something listens for SSH."""
    began = time.monotonic()
    paced = ((address, began + number / _PER_SECOND) for number, address in enumerate(addresses))
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        open_ = list(pool.map(_is_open, paced))
    return [address for address, is_open in zip(addresses, open_, strict=True) if is_open]


def _is_open(which: tuple[str, float]) -> bool:
    """Whether something listens at an address, which is not tried before a moment."""
    address, not_before = which
    time.sleep(max(0.0, not_before - time.monotonic()))
    try:
        socket.create_connection((address, PORT), _TIMEOUT).close()
    except OSError:
        return False
    return True


def showing(host_key: str, addresses: Sequence[str]) -> list[str]:
    """Those that show this host key. ProcessFailed or DeadlineExceeded when they cannot be asked."""
    kind = _kind(parse_public_key(host_key).type)
    argv = ["ssh-keyscan", "-T", str(_KEY_TIMEOUT), "-t", kind, "-p", str(PORT), "-f", "-"]
    found = []
    for start in range(0, len(addresses), _AT_ONCE):
        part = addresses[start : start + _AT_ONCE]
        output = run(argv, input="".join(f"{address}\n" for address in part), timeout=60, check=False).stdout
        found += [address for address, key in _keys(output) if address in part and same_key(key, host_key)]
    return list(dict.fromkeys(found))


def _keys(output: str) -> Iterator[tuple[str, str]]:
    """From lines such as `10.0.0.5 ssh-ed25519 AAAA…`, `[10.0.0.5]:2222 …`; what is not a key is left out."""
    for line in output.splitlines():
        where, _, key = line.partition(" ")
        address = where.partition("]")[0].lstrip("[")
        try:
            parse_public_key(key)
        except ValueError:
            continue
        yield address, key


def _kind(type: str) -> str:
    """What ssh-keyscan calls a type of key."""
    return "ecdsa" if type.startswith("ecdsa-") else type.removeprefix("ssh-")
