"""Hosts that nobody could become root on once they are installed, as one evaluation of the flake tells it."""

from collections.abc import Mapping
from pathlib import PurePath

from nixherd.base.errors import Finding, Severity
from nixherd.fleet.models import Fleet
from nixherd.nix.commands import Evaluated

WHAT = "no way to root on a machine that was just installed: no password, no key for root, and sudo asks for a password"
REMEDY = (
    "give root a key (users.users.root.openssh.authorizedKeys.keys, services.openssh.settings.PermitRootLogin = "
    '"prohibit-password"), or set security.sudo.wheelNeedsPassword = false'
)


def findings(fleet: Fleet, found: Mapping[str, object]) -> tuple[Finding, ...]:
    """An error for each host that is locked out. `found` is what the evaluation came to, by host; only `Evaluated` is
    judged, and of that only what is known.
    """
    return tuple(
        Finding(Severity.ERROR, _file(fleet, host_id), host_id, WHAT, REMEDY)
        for host_id, config in found.items()
        if isinstance(config, Evaluated) and config.root_access is False
    )


def _file(fleet: Fleet, host_id: str) -> str:
    """The host's configuration, below the fleet's directory where it is there."""
    file = PurePath(fleet.hosts[host_id].configuration_file or fleet.file)
    return str(file.relative_to(fleet.path)) if file.is_relative_to(fleet.path) else str(file)
