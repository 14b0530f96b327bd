"""nixos-rebuild itself, run here against a machine, and what is there afterwards read back."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pyinfra.api.host import Host

from nixherd.deploy.options import Engine
from nixherd.deploy.report import Outcome
from nixherd.deploy.run import HostRun
from nixherd.errors import FAILURES, DeadlineExceeded, FleetError, NotBegun, ProcessFailed, Undecided
from nixherd.faults import worded
from nixherd.files import write_whole
from nixherd.nix import nixos_rebuild
from nixherd.nix.commands import Evaluated
from nixherd.nix.nixos_rebuild import Flavour
from nixherd.process import run
from nixherd.ssh.destination import Destination
from operations.building import builder_of
from operations.deploy_run import ask, run_of
from operations.remote import run_towards
from operations.speaking import Wanted, deployment_of, note_too
from operations.steps import connector_of, fleet_host, session_of

DEADLINE = 4 * 3600.0  # seconds
HELP_DEADLINE = 60.0

State = Mapping[str, Any]
"""what a machine says of itself"""


def rebuild_on(
    host: Host,
    own: HostRun,
    about: Evaluated,
    action: str,
    build_on: str,
    specialisation: str | None,
) -> None:
    """Run it to its end, and note of which revision that is. FleetError when it fails, or something else runs then."""
    session, host_id = session_of(host), fleet_host(host).id
    flavour = session.once("nixos-rebuild", lambda: Flavour.of(_help()))
    builder, flake = builder_of(host, build_on), f"{session.flake}#{host_id}"

    def command(to: Destination | None) -> tuple[list[str], dict[str, str]]:
        build_host = (
            connector_of(builder).destination() if builder is not None else None
        )  # a Host is neither true nor false
        if to and build_host:
            both = session.known_hosts_of(host_id) / "with-its-builder"
            write_whole(both, to.known_hosts.read_text() + build_host.known_hosts.read_text())
            to = connector_of(host).configured(to.along_with(build_host, both))
        return nixos_rebuild.rebuild(
            *(flavour, action, flake, to),
            build_host=build_host,
            specialisation=specialisation,
            no_check=own.options.no_check,
        )

    before = ask(own)
    own.found(engine=Engine.NIXOS_REBUILD)
    own.enter("activate")
    failure: FleetError | None = None
    try:
        if connector_of(host).here:
            argv, environment = command(None)
            run(argv, env=environment, timeout=DEADLINE)
        else:
            run_towards(host, command, DEADLINE)
    except (ProcessFailed, DeadlineExceeded) as error:
        failure = error
    own.enter("prove")
    now = _asked_again(host, own, failure)
    own.found(current=now["current"], profile=now["profile"])
    if action != "dry-activate" and about.toplevel in (now["current"], now["profile"]):
        own.options = replace(own.options, specialisation=specialisation)
        wanted = Wanted(about.toplevel, revision=about.revision)
        note_too(host, own, deployment_of(host, run_of(host), own, wanted))
    judge(own, before, now, None if specialisation else about.toplevel, action, failure)


def _asked_again(host: Host, own: HostRun, failure: FleetError | None) -> Mapping[str, Any]:
    """What is there now. Undecided when nobody says it."""
    own.state = None
    connector_of(host).drop()
    try:
        connector_of(host).reach()
        return ask(own)
    except FAILURES as error:
        said = f"{failure}; " if failure else ""
        why = worded(error, "asking it")
        raise Undecided(f"{own.id}: {said}it cannot be asked what it runs now: {why}") from error


def judge(own: HostRun, before: State, now: State, wanted: str | None, action: str, failure: FleetError | None) -> None:
    """By what is there, whatever its status: nixos-rebuild sets the profile first, activates then, and never goes back.

    FleetError when that is not `wanted` (None where nobody knows), or not well.
    """
    current, profile = now["current"], now["profile"]
    if action == "dry-activate":
        if failure:
            raise NotBegun(f"{own.id}: {failure}")
        own.end(Outcome.PLANNED)
        return
    if failure and (current, profile) == (before["current"], before["profile"]):
        raise NotBegun(f"{own.id}: {failure}; it runs and boots what it did before")
    read = profile if action == "boot" else current
    if wanted not in (None, read):
        said = failure or f"nixos-rebuild {action} ended well"
        raise FleetError(
            f"{own.id}: {said}, but what is there is {read}, not {wanted}; its profile leads to {profile}, and nothing "
            "goes back by itself"
        )
    if wanted and action == "switch" and profile != wanted:
        own.found(profile_moved=f"its profile leads to {profile}, which somebody else has let it lead to meanwhile")
    failing = [] if action == "boot" else sorted(set(now["unwell"]) - set(before["unwell"]))
    if failure or failing:
        units = f"; units fail: {', '.join(failing)}" if failing else ""
        why = f"{failure or 'nixos-rebuild ended well'}{units}; it runs {current} all the same, and nothing goes back"
        own.end(Outcome.DEPLOYED_NOT_WELL, why)
        raise FleetError(f"{own.id}: {why}")
    own.end(Outcome.PENDING_REBOOT if action == "boot" else Outcome.DEPLOYED)


def _help() -> str:
    done = run(nixos_rebuild.HELP, timeout=HELP_DEADLINE, check=False)
    return done.stdout + done.stderr
