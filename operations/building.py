"""Where what is to come to a machine is built: here, on the machine itself, or on another one of the fleet.

What another one builds is fetched here and goes on as if it had been built here; what a machine builds for itself
stays there.
"""

import getpass
from collections.abc import Callable, Mapping, Sequence

from pyinfra.api.host import Host

from facts.nixos import BOOTED_PARTS
from nixherd.deploy.inhibitors import INHIBITORS, INIT
from nixherd.deploy.options import HERE, TARGET
from nixherd.deploy.protocol import Kind, hold
from nixherd.deploy.run import HostRun
from nixherd.errors import FleetError, ProcessFailed, Usage
from nixherd.fleet.models import Access
from nixherd.nix import commands as nix
from nixherd.nix.builder import BUILD_DEADLINE, realise
from nixherd.nix.errors import is_unsigned, last_error
from operations.deploy_run import require_root
from operations.remote import run_towards
from operations.steps import as_root, connector_of, session_of, shell

Tell = Callable[[str], None]


def builder_of(host: Host, build_on: str) -> Host | None:
    """The machine that builds for this one; None where that is done here.

    Usage when the fleet has none of this name, or it lets nobody build there.
    """
    if build_on == HERE or (build_on == TARGET and connector_of(host).here):
        return None
    hosts = session_of(host).fleet.hosts
    named = [each.id for each in hosts.values() if build_on in (each.id, each.ssh_alias)]
    if build_on != TARGET and not named:
        raise Usage(f"build_on={build_on} is neither {HERE}, {TARGET} nor a host of the fleet")
    builder = host if build_on == TARGET else _host_of(host, named[0])
    if connector_of(builder).access is not Access.SHELL:
        raise Usage(f"build_on={build_on}: {builder.data.host_id} takes forced commands alone and builds for nobody")
    return builder


def _host_of(host: Host, host_id: str) -> Host:
    found: Host = next(each for each in host.state.inventory if each.data.host_id == host_id)
    return found


def build_for(host: Host, own: HostRun, wanted: Mapping[str, Sequence[str]], tell: Tell) -> None:
    """Build it for this host, and in one go for all of `wanted`, the derivations of those with the same builder.

    FleetError when what this host needs cannot be built.
    """
    builder = builder_of(host, own.options.build_on)
    if builder is None:
        realise(session_of(host), wanted, own.id, tell)
    elif builder is host:
        _build_there(host, own, tell)
    else:
        realise(session_of(host), wanted, own.id, tell, fetch=lambda drvs: _fetch(builder, drvs, tell))


def _fetch(builder: Host, installables: Sequence[str], tell: Tell) -> None:
    """Have them built on another machine, and copied here."""
    try:
        run_towards(builder, lambda to: nix.build_from(installables, to), BUILD_DEADLINE, tell)
    except (ProcessFailed, OSError) as error:
        if isinstance(error, ProcessFailed) and is_unsigned(error.stderr):
            there = builder.data.host_id
            raise FleetError(
                f"what {there} built is not taken by the store here, whose daemon does not trust {getpass.getuser()}: "
                f"have {there} sign it (nix.settings.secret-key-files there, its public half in trusted-public-keys "
                "here), run this as root, or build elsewhere"
            ) from error
        raise FleetError(f"building on {builder.data.host_id} failed: {_last(error)}") from error


def _build_there(host: Host, own: HostRun, tell: Tell) -> None:
    """Have it built where it is to run, and be no garbage there from its first moment."""
    assert own.about is not None
    if own.kind is Kind.SYSTEM:
        require_root(own)
        as_root(host, hold(own.about.toplevel), what="holding it")
    drv = f"{own.about.toplevel_drv}^*"
    try:
        run_towards(host, lambda to: nix.build_at([drv], to), BUILD_DEADLINE, tell)
    except ProcessFailed as error:
        raise FleetError(f"{own.id}: building on it failed: {_last(error)}") from error


def _last(error: Exception) -> str:
    return last_error(error.stderr) if isinstance(error, ProcessFailed) and error.stderr else str(error)


def said_there(host: Host, system: str) -> dict[str, str | None]:
    """What keeps a system that was built on this machine from being switched to, as it says itself, by file."""
    found: dict[str, str | None] = {}
    for name in (INHIBITORS, INIT):
        script = f"cat {system}/{name} 2>/dev/null || true"
        found[name] = shell(host, script, what="looking at what was built") or None
    return found


def parts_there(host: Host, system: str) -> dict[str, str]:
    """Where what takes effect with a boot alone leads in a system that was built on this machine, by name."""
    script = (
        f"for part in {' '.join(BOOTED_PARTS)}; do "
        f'[ ! -e {system}/$part ] || echo "$part $(readlink -f {system}/$part)"; done'
    )
    return dict(line.split(" ", 1) for line in shell(host, script, what="looking at what was built").splitlines())
