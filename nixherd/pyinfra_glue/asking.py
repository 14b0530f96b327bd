"""A host of the fleet asked for its neighbours, over a connection of its own: pinned like any other, and read only."""

import secrets
import shlex
from collections.abc import Callable
from typing import TYPE_CHECKING

from pyinfra.api.host import Host as PyinfraHost

from nixherd.errors import FleetError
from nixherd.fleet.models import Access, Host
from nixherd.locate import neighbours
from nixherd.locate.neighbours import Neighbour
from nixherd.pyinfra_glue.proving import said

if TYPE_CHECKING:
    from nixherd.pyinfra_glue.fleet import FleetConnector

MOST = 8 << 20  # bytes of an answer that are read


def asker(connector: "FleetConnector") -> Callable[[Host], tuple[Neighbour, ...]]:
    """How a connector's run asks another host; what one told is not asked again for a few seconds."""

    def ask(host: Host) -> tuple[Neighbour, ...]:
        found: PyinfraHost = next(each for each in connector.state.inventory if each.data.host_id == host.id)
        return connector.context.sightings.told_by(host.id, lambda: _ask(type(connector)(connector.state, found)))

    return ask


def _ask(connector: "FleetConnector") -> tuple[Neighbour, ...]:
    """FleetError when it does not say."""
    host = connector.fleet_host
    if host.access is not Access.SHELL:
        raise FleetError(f"it takes forced commands alone ({host.access})")
    if connector.context.keys.pinned(host.id) is None:
        raise FleetError("no host key is pinned for it in hosts.nix")
    connector.is_asked = True
    token = secrets.token_hex(8)
    try:
        client = connector.once()
        script = _with_rights(host, neighbours.look(token), connector.data["ssh_user"])
        told = neighbours.parse(said(client, script, most=MOST), token)
    except OSError as error:
        raise FleetError(str(error)) from error
    finally:
        connector.drop()
    if told is None:
        raise FleetError("it did not come to the end of what it was to tell")
    return told


def _with_rights(host: Host, script: str, user: str | None) -> str:
    """Some leases are root's to read."""
    if user == "root" or not host.sudo_passwordless:
        return script
    whole = f"sh -c {shlex.quote(script)}"
    return f"sudo -n {whole} 2>/dev/null || {whole}"
