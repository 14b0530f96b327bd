"""Hosts of the fleet on the way to others: what the fleet says of them, and the keys that they are known by."""

import hashlib
import socket
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from paramiko import SSHException

from nixherd.base.errors import Usage
from nixherd.base.process import Carrier
from nixherd.base.ssh_keys import known_hosts_line
from nixherd.base.ssh_options import HopName
from nixherd.fleet.host_keys import HostKeys
from nixherd.fleet.models import Access, Fleet, Host
from nixherd.ssh.destination import Destination, Identities, Route
from nixherd.ssh.ssh_config import Answers, Configuration, Hop, config_options

DIRECTLY = "none"
"""what the operator says of a machine that is reached without a hop now, whatever the fleet says"""


class Hops:
    """What ssh_config's reader is told of the fleet; `keep` writes a text to a file of this kind, and returns it.

    `find` says where a host answers that names no addresses; None where nobody but ssh_config knows.
    """

    def __init__(
        self,
        fleet: Fleet,
        keys: HostKeys,
        keep: Callable[[str, str], Path],
        find: Callable[[Host], str | None] = lambda host: None,
    ) -> None:
        self._fleet, self._keys, self._keep, self._find = fleet, keys, keep, find

    def pin(self, names: Collection[str]) -> tuple[str, Path] | None:
        """Under which name, in which file, the key of a hop is kept that is a host of the fleet."""
        # a name that others give themselves is the host's whose id it is
        for host in sorted(self._fleet.hosts.values(), key=lambda each: each.id not in names):
            known = {host.id, host.ssh_alias, host.hostname, *host.names}
            if not known.isdisjoint(names) and (key := self._keys.pinned(host.id)):
                # OpenSSH looks for what it is told in lines that it has put into lower case
                name = host.id.lower().replace("@", "-")
                return name, self._keep("hop", known_hosts_line([name], key))
        return None

    def hop(self, name: str) -> Hop | None:
        """The host of the fleet that is named as a hop; None for another machine. Usage where it lets nobody pass."""
        host = self._fleet.known_as(name)
        if host is None:
            return None
        if host.unread:
            raise Usage(f"jump: {host.id}: {host.unread.removeprefix(f'{host.id}: ')}")
        if host.access is not Access.SHELL:
            raise Usage(f"jump: {host.id} takes forced commands alone ({host.access}); name a host that lets one pass")
        if host.id in self._fleet.hops_of(host.id):
            raise Usage(f"jump: {host.id} is reached through itself; take it out of the way there")
        if not self._keys.pinned(host.id):
            raise Usage(f"jump: {host.id} has no pinned key; `nixherd trust {host.id}` pins it")
        known = host.addresses[0] if host.addresses else self._find(host)
        where = known or [*host.names, host.id][0]
        return Hop(host.id, names_of(host, where), host.user, host.port, host.jump, known is not None)


def names_of(host: Host, address: str) -> tuple[str, ...]:
    """By which names ssh_config may speak of a host, the one where it is last."""
    called = host.hostname if "@" in host.id else host.id  # USER@MACHINE is not a name to ssh
    return tuple(dict.fromkeys(name for name in (host.ssh_alias, called, address) if name))


def jump_of(host: Host, override: object) -> Sequence[str] | None:
    """What a host is reached through: as the operator says it now, in one text, else as the fleet does. Usage where
    that names no hops."""
    if override is None:
        return host.jump
    try:
        return () if override == DIRECTLY else tuple(str(HopName.parse(each)) for each in str(override).split(","))
    except ValueError as error:
        raise Usage(f"--data ssh_jump: {error}; write a host's id, [USER@]NAME[:PORT], or {DIRECTLY}") from None


def with_key(route: Route, key: Path) -> Route:
    """The same way with this as the only key that hosts of the fleet on it are logged in to with."""
    only = Identities((key,), only=True)
    return replace(
        route, jumps=tuple(replace(each, identities=only) if each.key_name else each for each in route.jumps)
    )


@contextmanager
def connected(fleet: Fleet, keys: HostKeys, host: Host, place: str) -> Iterator[socket.socket | None]:
    """A connection to what listens at a place of a host, through the hops that the fleet names; None where it names
    none. Usage where they cannot be followed, OSError when nobody answers."""
    if not host.jump:
        yield None
        return
    with TemporaryDirectory(prefix="nixherd-") as directory:

        def keep(kind: str, text: str) -> Path:
            path = Path(directory) / f"{kind}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
            path.write_text(f"{text}\n")
            return path

        hops = Hops(fleet, keys, keep)
        configuration = Configuration(tuple(config_options()), Answers(), hops.pin, hops.hop)
        names, user = names_of(host, place), host.user or "root"
        way = configuration.way_to(names, user, host.port, address=place, jump=host.jump)
        to = Destination(way.address, user, keep("known_hosts", ""), way.port, route=way.route)
        argv = replace(to, config=keep("config", to.text)).carrier
        assert argv is not None
        carrier = Carrier(argv)
        try:
            yield carrier.socket
        except (OSError, EOFError, SSHException) as error:
            raise OSError(carrier.last_words or str(error) or "it hung up") from error
        finally:
            carrier.end()
