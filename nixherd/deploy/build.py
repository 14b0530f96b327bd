"""Where what is to come to a machine is built: here, on the machine itself, or on another one of the fleet.

What another one builds is copied here and goes on as if it had been built here; what a machine builds for itself
stays there.
"""

import getpass
from collections.abc import Callable, Sequence
from functools import partial

from nixherd.base.errors import FleetError, ProcessFailed, Usage
from nixherd.deploy.copy import run_towards
from nixherd.deploy.machine import Machine, output_of
from nixherd.deploy.options import HERE, TARGET
from nixherd.deploy.protocol import Kind, hold
from nixherd.deploy.run import Built, HostRun, Planned, Rollout
from nixherd.deploy.running import require_root
from nixherd.fleet.models import Access, Fleet
from nixherd.nix import commands as nix
from nixherd.nix.builder import BUILD_DEADLINE, Builder
from nixherd.nix.commands import Evaluated
from nixherd.nix.errors import is_unsigned, last_error
from nixherd.nix.log import BuildProgress

Machines = Callable[[str], Machine]


def builder_of(fleet: Fleet, machine: Machine, build_on: str, machines: Machines) -> Machine | None:
    """The machine that builds for this one; None where that is done here. `machines` gives those of other hosts.

    Usage when the fleet has none of this name, or it lets nobody build there.
    """
    if build_on == HERE or (build_on == TARGET and machine.is_local):
        return None
    named = [each.id for each in fleet.hosts.values() if build_on in (each.id, each.ssh_alias)]
    if build_on != TARGET and not named:
        raise Usage(f"build_on={build_on} is neither {HERE}, {TARGET} nor a host of the fleet")
    builder = machine if build_on == TARGET or named[0] == machine.id else machines(named[0])
    if builder.access is not Access.SHELL:
        raise Usage(f"build_on={build_on}: {builder.id} takes forced commands alone and builds for nobody")
    return builder


def build(
    nix_builder: Builder,
    rollout: Rollout,
    host_run: HostRun,
    planned: Planned,
    builder: Machine | None,
    to_come: Sequence[Evaluated],
) -> Built:
    """Build it for this host, and in one go all of `to_come` that the same builder builds.

    FleetError when what this host needs cannot be built.
    """
    host_run.enter("build")
    progress, journal = BuildProgress(), host_run.journal

    def tell(line: str) -> None:
        if text := progress.feed(line):
            journal.note("said", text=text)

    build_on = {id: each.options.build_on for id, each in rollout.hosts.items()}
    alike = (config for config in to_come if build_on[config.host_id] == host_run.options.build_on)
    derivations = {config.host_id: [config.toplevel_drv] for config in (planned.config, *alike)}
    if builder and builder.id == host_run.id:
        _build_there(host_run, planned, tell)
        return Built(planned, is_there=True)
    nix_builder.realise(derivations, host_run.id, tell, fetch=partial(_build_on, builder, tell) if builder else None)
    return Built(planned)


def _build_on(builder: Machine, tell: Callable[[str], None], installables: Sequence[str]) -> None:
    """Have them built on another machine, and copied here."""
    try:
        run_towards(builder, lambda to: nix.build_from(installables, to), BUILD_DEADLINE, tell)
    except (ProcessFailed, OSError) as error:
        if isinstance(error, ProcessFailed) and is_unsigned(error.stderr):
            raise FleetError(
                f"what {builder.id} built is not taken by the store here, whose daemon does not trust "
                f"{getpass.getuser()}: have {builder.id} sign it (nix.settings.secret-key-files there, its public half "
                "in trusted-public-keys here), run this as root, or build elsewhere"
            ) from error
        raise FleetError(f"building on {builder.id} failed: {_reason(error)}") from error


def _build_there(host_run: HostRun, planned: Planned, tell: Callable[[str], None]) -> None:
    """Have it built where it is to run, and be no garbage there from its first moment."""
    config = planned.config
    if host_run.kind is Kind.SYSTEM:
        require_root(host_run.machine, planned.reached.running)
        output_of(host_run.machine, hold(config.toplevel), what="holding it", sudo=True)
    installables = [f"{config.toplevel_drv}^*"]
    try:
        run_towards(host_run.machine, lambda to: nix.build_at(installables, to), BUILD_DEADLINE, tell)
    except ProcessFailed as error:
        raise FleetError(f"{host_run.id}: building on it failed: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    return last_error(error.stderr) if isinstance(error, ProcessFailed) and error.stderr else str(error)
