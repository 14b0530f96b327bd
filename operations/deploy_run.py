"""A host's part in a run of a deployment: what is asked of it, what is known of it, and how a row goes about it."""

import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from pyinfra import host
from pyinfra.api.host import Host
from pyinfra.api.state import State

from facts.home_manager import Home, HomeState
from facts.nixos import Running, SystemState
from nixherd.deploy.goal import Goal
from nixherd.deploy.journal import Journal, new_directory
from nixherd.deploy.options import Options
from nixherd.deploy.protocol import GATE, Kind, parse
from nixherd.deploy.run import DeployRun, HostRun
from nixherd.deploy.waves import USUAL
from nixherd.errors import FAILURES, FleetError, NotBegun, Usage
from nixherd.fleet.models import Access
from nixherd.pyinfra_glue.deploy_file import require_order
from operations.steps import Commands, connector_of, decide, fleet_host, session_of

ANSWER_DEADLINE = 60  # seconds for a machine to say what runs on it


def run_of(host: Host) -> DeployRun:
    """The run that this host is part of."""
    session = session_of(host)

    def begin() -> DeployRun:
        session.claim_fleet()
        journal = session.journal = session.journal or Journal(new_directory())
        selected = sorted(each.data.host_id for each in _limited(host.state))
        made = DeployRun(journal, tuple(selected))
        goal = Options.of(fleet_host(host).id, lambda name: _said(host, name)).goal
        flake = session.locked or session.fleet.path
        journal.note("run", run=made.id, who=made.who, fleet=session.fleet.path, flake=flake, goal=goal)
        return made

    return session.once("deployment", begin)


def this_host(host: Host) -> HostRun:
    """Usage when what was said of it cannot be meant."""
    kind = Kind.SYSTEM if fleet_host(host).is_nixos else Kind.HOME
    options = options_of(host)
    if kind is Kind.HOME and not (options.goal is Goal.SWITCH and options.specialisation is None):
        raise Usage(f"{fleet_host(host).id}: goal={options.goal}: a home can be switched to, and no more")
    return run_of(host).host(fleet_host(host).id, kind, options)


def options_of(host: Host) -> Options:
    return Options.of(fleet_host(host).id, lambda name: _said(host, name))


def _said(host: Host, name: str) -> Any:
    """What was said of a host: on the command line, in group data, or in its entry in hosts.nix."""
    data = host.data.get(name)
    return fleet_host(host).deployment.get(name) if data is None else data


def _limited(state: State) -> list[Host]:
    return [each for each in state.inventory if state.is_host_in_limit(each)]


def waves(host: Host) -> list[int]:
    """The waves of the hosts that are selected, in their order. Usage where pyinfra was told to go in another one."""
    require_order(host.data.get("without_order"))

    def found() -> list[int]:
        waves = set()
        for each in _limited(host.state):
            with suppress(*FAILURES):  # said when it is that host's turn
                waves.add(options_of(each).wave)
        return sorted(waves) or [USUAL]

    return session_of(host).once("waves", found)  # every host asks


def acting(body: Callable[[HostRun], Commands]) -> Commands:
    """A row's body for this host, unless its outcome is known already."""

    def guarded() -> Commands:
        own = this_host(host)
        if own.is_over:
            host.noop(f"{own.id}: {own.outcome}")
            return
        yield from body(own)

    yield from decide(host, guarded)


def looking(body: Callable[[HostRun], str]) -> Commands:
    """The same for a row that changes nothing and says what it found."""

    def looked(own: HostRun) -> Commands:
        host.noop(body(own))
        yield from ()

    yield from acting(looked)


def ask(own: HostRun) -> Mapping[str, Any]:
    """What the machine says of itself, asked once. FleetError when it does not say."""
    if own.state is None:
        own.state = _asked(own)
    if own.state is None:
        raise FleetError(f"{own.id}: it did not say what runs on it; look at it and run this again")
    return own.state


def require_root(own: HostRun) -> None:
    """NotBegun where root's work cannot be done: sudo asks for a password that nobody gave."""
    if own.state and own.state.get("sudo") == "asks" and not give_password(host):
        raise NotBegun(
            f"{own.id}: sudo asks for a password there; give it on stdin with --data sudo_password=stdin "
            "(nixherd deploy --ask-sudo-password), or use sudoPasswordless"
        )


def _asked(own: HostRun) -> Mapping[str, Any] | None:
    access = connector_of(host).access
    if access is Access.TRIGGER:
        raise FleetError(f"{own.id}: it can be triggered, not asked")
    if access is Access.PUSH_CLOSURE:
        return _gate()
    return _system() if own.kind is Kind.SYSTEM else _home()


def _gate() -> dict[str, Any]:
    """What the program on a machine that takes nothing else says."""
    ok, output = connector_of(host).forced(f"{GATE} last", ANSWER_DEADLINE)
    if not ok:
        raise FleetError(f"{host.data.host_id}: {(output.stderr_lines or ['no answer'])[-1]}")
    now = parse(output.stdout)
    about = ("hostname", "revision", "configuration_revision", "boot_id", "init", "inhibitors", "protocol")
    names = ("current", "profile", *about)
    known = {name: getattr(now, name) for name in names}
    units = {"unwell": _listed(now.unwell), "at_work": _listed(now.at_work), "failed": [], "aside": []}
    return {**known, **units, "parts": {}, "reboot_for": [], "sudo": "root"}


def _listed(units: str | None) -> list[str]:
    return units.split(", ") if units else []


def give_password(host: Host) -> bool:
    """Have sudo on this machine get the password that whoever runs this gives on stdin. False when nobody does."""
    if host.data.get("sudo_password") != "stdin":
        return False
    connector_of(host).sudo_password = session_of(host).sudo_password(lambda: sys.stdin.readline().rstrip("\n"))
    return True


def _system() -> SystemState | None:
    state: SystemState | None = host.get_fact(Running, _timeout=ANSWER_DEADLINE, _ignore_errors=True)
    return state


def _home() -> dict[str, Any] | None:
    state: HomeState | None = host.get_fact(Home, _timeout=ANSWER_DEADLINE, _ignore_errors=True)
    return None if state is None else {**state, "profile": state["current"], "failed": [], "parts": {}}
