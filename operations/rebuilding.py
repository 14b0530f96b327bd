"""nixos-rebuild itself, run here against a machine, and what is there afterwards read back."""

from pyinfra.api.host import Host

from nixherd import nixos_rebuild
from nixherd.deploying.report import Outcome
from nixherd.deploying.run import HostRun
from nixherd.errors import FleetError
from nixherd.files import write_whole
from nixherd.nixos_rebuild import Flavour
from nixherd.openssh import Destination
from nixherd.process import run
from operations.building import builder_of
from operations.deploy_run import ask
from operations.remote import run_towards
from operations.steps import connector_of, fleet_host, session_of

DEADLINE = 4 * 3600.0  # seconds
HELP_DEADLINE = 60.0


def rebuild_on(
    host: Host,
    own: HostRun,
    wanted: str,
    action: str,
    build_on: str,
    specialisation: str | None,
) -> None:
    """Run it to its end. FleetError when it fails, or something else than `wanted` runs then."""
    session, host_id = session_of(host), fleet_host(host).id
    flavour = session.once("nixos-rebuild", lambda: Flavour.of(_help()))
    builder, flake = builder_of(host, build_on), f"{session.flake}#{host_id}"

    def command(to: Destination | None) -> tuple[list[str], dict[str, str]]:
        build_host = connector_of(builder).destination() if builder else None
        if to and build_host:
            both = session.known_hosts_of(host_id) / "with-its-builder"
            write_whole(both, to.known_hosts.read_text() + build_host.known_hosts.read_text())
            to = connector_of(host).configured(to.along_with(build_host, both))
        return nixos_rebuild.rebuild(flavour, action, flake, to, build_host=build_host, specialisation=specialisation)

    own.enter("activate")
    if connector_of(host).here:
        argv, environment = command(None)
        run(argv, env=environment, timeout=DEADLINE)
    else:
        run_towards(host, command, DEADLINE)
    own.enter("prove")
    own.state = None
    state = ask(own)
    own.found(current=state["current"], profile=state["profile"])
    read = state["profile"] if action == "boot" else state["current"]
    if action in ("switch", "boot", "test") and specialisation is None and read != wanted:
        raise FleetError(f"{own.id}: nixos-rebuild {action} ended well, but what is there is {read}, not {wanted}")
    own.end({"boot": Outcome.PENDING_REBOOT, "dry-activate": Outcome.PLANNED}.get(action, Outcome.DEPLOYED))


def _help() -> str:
    done = run(nixos_rebuild.HELP, timeout=HELP_DEADLINE, check=False)
    return done.stdout + done.stderr
