"""A deployment, row by row: reach, evaluate, build, show, copy, and on each machine activate, prove, keep or go back.

What one row finds the next ones use; it is in the run (`fleetwright.deploying.run`) and in its journal. The rows before
`copy` change nothing, so that `--dry` ends there.
"""

import shlex
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from pyinfra import host
from pyinfra.api import operation
from pyinfra.api.host import Host
from pyinfra.api.state import State

from facts.home_manager import Home, HomeState
from facts.nixos import BOOTED_PARTS, Running, SystemState
from fleetwright import nix
from fleetwright.build import evaluate as evaluate_all
from fleetwright.build import realise
from fleetwright.deploying import closures, health
from fleetwright.deploying.activation import Kind, hold
from fleetwright.deploying.goal import Goal
from fleetwright.deploying.journal import Journal, new_directory
from fleetwright.deploying.options import Options
from fleetwright.deploying.progress import BuildProgress
from fleetwright.deploying.report import Outcome
from fleetwright.deploying.run import DeployRun, HostRun
from fleetwright.deploying.waves import USUAL, label
from fleetwright.errors import FleetError, NotBegun, Usage
from fleetwright.git import Repository
from fleetwright.nix import Evaluated
from fleetwright.process import run
from fleetwright.sizes import human
from operations.activating import activate as activate_on
from operations.remote import copy_closure
from operations.steps import (
    Commands,
    as_root,
    connector_of,
    decide,
    do,
    executing,
    failed,
    fleet_host,
    session_of,
    shell,
)

ANSWER_DEADLINE = 60  # seconds for a machine to say what runs on it
PATH_INFO_DEADLINE = 300.0


def run_of(host: Host) -> DeployRun:
    """The run that this host is part of."""
    session = session_of(host)

    def begin() -> DeployRun:
        session.claim_fleet()
        journal = session.journal = session.journal or Journal(new_directory())
        selected = sorted(each.data.host_id for each in _limited(host.state))
        made = DeployRun(journal, tuple(selected))
        journal.note("run", run=made.id, who=made.who, fleet=session.fleet.path)
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
    return fleet_host(host).extra.get(name) if data is None else data


def _limited(state: State) -> list[Host]:
    return [each for each in state.inventory if state.is_host_in_limit(each)]


def waves(host: Host) -> list[int]:
    """The waves of the hosts that are selected, in their order."""
    found = set()
    for each in _limited(host.state):
        with suppress(FleetError):  # said when it is that host's turn
            found.add(options_of(each).wave)
    return sorted(found) or [USUAL]


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


@operation()
def reach() -> Commands:
    """Ask the machine what runs on it: one round trip."""
    yield from looking(_reach)


def _reach(own: HostRun) -> str:
    own.enter("reach")
    own.state = _system() if own.kind is Kind.SYSTEM else _home()
    if own.state is None:
        raise FleetError(f"{own.id}: it did not say what runs on it; look at it and run this again")
    place = connector_of(host).reach()
    kept = ("booted", "hostname", "failed", "boot_id")
    own.found(address=place.address, old=own.state["current"], before={name: own.state.get(name) for name in kept})
    return f"{own.id} runs {own.state['current']}"


def _system() -> SystemState | None:
    state: SystemState | None = host.get_fact(Running, _timeout=ANSWER_DEADLINE, _ignore_errors=True)
    return state


def _home() -> dict[str, Any] | None:
    state: HomeState | None = host.get_fact(Home, _timeout=ANSWER_DEADLINE, _ignore_errors=True)
    return None if state is None else {**state, "profile": state["current"], "failed": [], "parts": {}}


@operation()
def evaluate() -> Commands:
    """What the flake says of the host; one evaluation for all that are reached."""
    yield from looking(_evaluate)


def _evaluate(own: HostRun) -> str:
    own.enter("evaluate")
    session = session_of(host)
    session.once("gate", lambda: _require_committed(session.fleet.path, own))
    about = own.about = evaluate_all(session, _reached(host), own.id)
    state = own.state
    assert state is not None, "the row before has asked it"
    own.found(new=about.toplevel, revision=about.revision)
    own.checks = health.parse(f"{own.id}: fleetwright.healthChecks", about.health) + health.parse(
        f"hosts.nix: {own.id}.healthChecks", fleet_host(host).extra.get("healthChecks")
    )
    if _is_done(own.options, state, about.toplevel):
        own.end(Outcome.UNCHANGED)
        return f"{own.id} runs {about.toplevel} already"
    return f"{own.id}: {about.toplevel} is to come"


def _is_done(options: Options, state: Any, toplevel: str) -> bool:
    wanted = f"{toplevel}/specialisation/{options.specialisation}" if options.specialisation else toplevel
    runs = state["current"] == wanted or (options.specialisation and _resolved(wanted) == state["current"])
    profile = state["profile"] == toplevel
    return bool({Goal.SWITCH: runs and profile, Goal.TEST: runs, Goal.BOOT: profile}.get(options.goal, False))


def _resolved(path: str) -> str | None:
    return str(Path(path).resolve()) if Path(path).exists() else None


def _require_committed(fleet: str, own: HostRun) -> None:
    """FleetError while the fleet's files differ from what is committed: nobody could say later what was deployed."""
    repository = Repository.around(Path(fleet))
    changed = repository.changed(["."]) if repository else []
    own.journal.note("run", dirty=changed, in_git=repository is not None)
    if changed and not own.options.allow_dirty:
        more = f" (and {len(changed) - 1} more)" if len(changed) > 1 else ""
        raise FleetError(
            f"{fleet}/{changed[0]}: has changes that are not committed{more}; commit them, or say allow_dirty=true"
        )


def _reached(host: Host) -> tuple[str, ...]:
    """The ids of the hosts of this run that answer: they are evaluated together."""
    return tuple(sorted(each.data.host_id for each in host.state.activated_hosts if not failed(each)))


@operation()
def build() -> Commands:
    """Build what is to come; one build for all hosts."""
    yield from looking(_build)


def _build(own: HostRun) -> str:
    own.enter("build")
    assert own.about is not None
    wanted = {about.host_id: [about.toplevel_drv] for about in _to_come(host)}
    progress, journal = BuildProgress(), own.journal

    def tell(line: str) -> None:
        if said := progress.feed(line):
            journal.note("said", text=said)  # in a thread of its own, which has no `host`

    realise(session_of(host), wanted, own.id, tell)
    return f"{own.id}: {own.about.toplevel} is built"


def _to_come(host: Host) -> list[Evaluated]:
    """What is to come to the hosts that are reached, but for those that have it already, as far as that is known."""
    asked, reached = run_of(host), _reached(host)
    found = []
    for host_id in reached:
        with suppress(FleetError):
            about = evaluate_all(session_of(host), reached, host_id)
            known = asked.hosts.get(host_id)
            if known is None or known.state is None or not _is_done(known.options, known.state, about.toplevel):
                found.append(about)
    return found


@operation()
def show() -> Commands:
    """What changes: packages by version and size, and whether a boot is needed for some of it."""
    yield from looking(_show)


def _show(own: HostRun) -> str:
    own.enter("show")
    assert own.about is not None
    assert own.state is not None
    session = session_of(host)
    built = sorted(path for path in {about.toplevel for about in _to_come(host)} if Path(path).exists())
    running = {each.state["current"] for each in run_of(host).hosts.values() if each.state and each.state["current"]}
    here = session.once(("closures", *built), lambda: _local_closures([*built, *sorted(running)]))
    after, before = here[own.about.toplevel], here.get(own.state["current"])
    if before is None:
        before = _remote_closure(own.state["current"])
    own.diff = closures.diff(before, after)
    parts = {part: _resolved(f"{own.about.toplevel}/{part}") for part in BOOTED_PARTS}
    reboot = sorted(part for part, booted in own.state["parts"].items() if parts[part] not in (None, booted))
    own.found(
        diff=[str(change) for change in own.diff.changes],
        size_before=own.diff.before,
        size_after=own.diff.after,
        reboot_for=reboot,
    )
    for change in own.diff.changes:
        host.log(str(change))
    host.log(f"closure {human(own.diff.before)} → {human(own.diff.after)}")
    if reboot:
        host.log(f"needs a reboot for: {', '.join(reboot)}")
    if own.options.goal is Goal.DRY_ACTIVATE or not executing(host):
        own.found(services="not copied, services unknown")
    return f"{own.id}: {own.state['current']} → {own.about.toplevel}"


def _remote_closure(path: str | None) -> dict[str, int]:
    """Sizes by path of a closure on the machine; of none there are none."""
    if path is None:
        return {}
    return closures.parse_path_info(shell(host, shlex.join(nix.closure_sizes(path)), what="listing what runs"))


def _local_closures(paths: Iterable[str]) -> dict[str, dict[str, int]]:
    """Sizes by path of the closures of these that are in the store here."""
    roots = [path for path in paths if Path(path).exists()]
    graph = nix.parse_path_info(run(nix.path_info(roots), timeout=PATH_INFO_DEADLINE).stdout)
    return {root: _closure(graph, root) for root in roots}


def _closure(graph: dict[str, tuple[int, tuple[str, ...]]], root: str) -> dict[str, int]:
    found: dict[str, int] = {}
    left = [root]
    while left:
        path = left.pop()
        if path not in found:
            found[path], references = graph[path]
            left.extend(references)
    return found


@operation()
def copy() -> Commands:
    """Copy what is missing of it to the machine, where it is no garbage until the end."""
    yield from acting(_copy)


def _copy(own: HostRun) -> Commands:
    about = own.about
    if not executing(host):
        yield from do(host, f"copy {about.toplevel if about else 'the new system'} to {own.id}", lambda: None)
        return
    assert about is not None

    def act() -> None:
        own.enter("copy")
        try:
            if own.kind is Kind.SYSTEM:
                as_root(host, hold(about.toplevel), what="holding it")
            copy_closure(host, [about.toplevel])
        except (FleetError, OSError) as error:
            raise NotBegun(f"{own.id}: it cannot be copied: {error}") from error

    yield from do(host, f"copy {about.toplevel} to {own.id}", act)


@operation()
def activate(wave: int) -> Commands:
    """Activate it under the machine's own guard, prove that it runs, and keep it; or have the machine go back.

    Args:
        wave: only hosts of this wave do; each wave is a row of its own, and begins when the one before is proven.
    """
    yield from acting(lambda own: _activate(own) if own.options.wave == wave else _not_yet(own))


def _not_yet(own: HostRun) -> Commands:
    host.noop(f"{own.id} goes in {label(own.options.wave)}")
    yield from ()


def _activate(own: HostRun) -> Commands:
    asked, options, about = run_of(host), own.options, own.about
    summary = f"{options.goal} {own.id} to {about.toplevel if about else 'the new system'}"
    if not executing(host):
        own.end(Outcome.PLANNED)
        yield from do(host, summary, lambda: None)
        return

    def act() -> None:
        with asked.roles[options.role or own.id]:
            if why := options.max_fail.holds(options.wave, asked.failed, len(asked.selected)):
                own.end(Outcome.HELD, why)
                raise NotBegun(f"{own.id} is held: {why}")
            try:
                activate_on(host, asked, own)
            except (FleetError, OSError):
                asked.failed[own.id] = options.wave
                raise

    yield from do(host, summary, act)
