"""A deployment, row by row: reach, evaluate, build, show, copy, and on each machine activate, prove, keep or go back.

What one row finds the next ones use; it is in the run (`fleetwright.deploying.run`) and in its journal. The rows before
`copy` change nothing, so that `--dry` ends there.
"""

import shlex
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from pyinfra import host
from pyinfra.api import operation
from pyinfra.api.host import Host

from facts.nixos import BOOTED_PARTS
from fleetwright import nix
from fleetwright.build import realise
from fleetwright.deploying import closures, health
from fleetwright.deploying.access import Access
from fleetwright.deploying.activation import Kind, hold
from fleetwright.deploying.goal import Goal
from fleetwright.deploying.options import Engine, Options
from fleetwright.deploying.progress import BuildProgress
from fleetwright.deploying.report import Outcome
from fleetwright.deploying.run import HostRun
from fleetwright.deploying.waves import label
from fleetwright.errors import FleetError, NotBegun
from fleetwright.evaluation import evaluate as evaluate_all
from fleetwright.git import Repository
from fleetwright.nix import Evaluated
from fleetwright.process import run
from fleetwright.sizes import human
from operations.activating import Wanted
from operations.activating import activate as activate_on
from operations.deploy_run import acting, ask, looking, require_root, run_of
from operations.rebuilding import rebuild_on
from operations.remote import copy_closure
from operations.steps import (
    Commands,
    as_root,
    connector_of,
    do,
    executing,
    failed,
    fleet_host,
    session_of,
    shell,
)

PATH_INFO_DEADLINE = 300.0


@operation()
def reach() -> Commands:
    """Ask the machine what runs on it: one round trip."""
    yield from looking(_reach)


def _reach(own: HostRun) -> str:
    own.enter("reach")
    place = connector_of(host).reach()
    if _is_triggered():
        own.found(address=place.address)
        return f"{own.id} pulls its configuration itself, and is not asked"
    own.state = ask(own)
    kept = ("booted", "hostname", "failed", "boot_id")
    own.found(address=place.address, old=own.state["current"], before={name: own.state.get(name) for name in kept})
    return f"{own.id} runs {own.state['current']}"


@operation()
def evaluate() -> Commands:
    """What the flake says of the host; one evaluation for all that are reached."""
    yield from looking(_evaluate)


def _evaluate(own: HostRun) -> str:
    own.enter("evaluate")
    session = session_of(host)
    session.once("gate", lambda: _require_committed(session.fleet.path, own))
    if own.options.require_signed:
        _require_signed(session.fleet.path, own)
    about = own.about = evaluate_all(session, _reached(host), own.id)
    state = own.state
    own.found(new=about.toplevel, revision=about.revision)
    own.checks = health.parse(f"{own.id}: fleetwright.healthChecks", about.health) + health.parse(
        f"hosts.nix: {own.id}.healthChecks", fleet_host(host).extra.get("healthChecks")
    )
    if state is not None and _is_done(own.options, state, about.toplevel):
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
    if changed and (own.options.require_signed or not own.options.allow_dirty):
        more = f" (and {len(changed) - 1} more)" if len(changed) > 1 else ""
        remedy = "" if own.options.require_signed else ", or say allow_dirty=true"
        raise FleetError(f"{fleet}/{changed[0]}: has changes that are not committed{more}; commit them{remedy}")


def _require_signed(fleet: str, own: HostRun) -> None:
    """FleetError unless every commit since the one that runs was signed by somebody who may."""
    repository = Repository.around(Path(fleet))
    if repository is None:
        raise FleetError(f"{fleet}: require_signed is set, but it is in no git repository")
    running = own.state.get("revision") if own.state else None
    signers = own.options.allowed_signers
    unsigned = repository.not_signed(running, Path(fleet) / signers if signers else None)
    if unsigned:
        more = f" (and {len(unsigned) - 1} more)" if len(unsigned) > 1 else ""
        raise FleetError(f"{fleet}: commit {unsigned[0]!r}{more} is signed by nobody who may; nothing was changed")


def _reached(host: Host) -> tuple[str, ...]:
    """The ids of the hosts of this run that answer: they are evaluated together."""
    return tuple(sorted(each.data.host_id for each in host.state.activated_hosts if not failed(each)))


@operation()
def build() -> Commands:
    """Build what is to come; one build for all hosts."""
    yield from looking(_build)


def _build(own: HostRun) -> str:
    if _is_triggered():
        return f"{own.id} builds by itself"
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
    if _is_triggered():
        return f"{own.id} is not asked what changes"
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
    booted = own.state["parts"]
    reboot = own.reboot = tuple(sorted(part for part in booted if parts[part] not in (None, booted[part])))
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
    if not executing(host):
        own.found(services="not copied, services unknown")
    return f"{own.id}: {own.state['current']} → {own.about.toplevel}"


def _remote_closure(path: str | None) -> dict[str, int]:
    """Sizes by path of a closure on the machine; of none there are none."""
    if path is None or connector_of(host).access is not Access.SHELL:
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
    if _is_triggered():
        host.noop(f"{own.id} pulls by itself")
        return
    if own.options.engine is Engine.NIXOS_REBUILD:
        host.noop(f"{own.id}: nixos-rebuild copies")
        return
    if not executing(host):
        yield from do(host, f"copy {about.toplevel if about else 'the new system'} to {own.id}", lambda: None)
        return
    assert about is not None

    def act() -> None:
        require_root(own)
        own.enter("copy")
        try:
            if own.kind is Kind.SYSTEM and connector_of(host).access is Access.SHELL:
                as_root(host, hold(about.toplevel), what="holding it")
            _require_taken(own)
            if own.options.sign_with:
                key = str(Path(own.options.sign_with).expanduser())
                run(nix.sign([about.toplevel], key), timeout=PATH_INFO_DEADLINE)
            copy_closure(host, [about.toplevel], substitute=own.options.substitute)
        except (FleetError, OSError) as error:
            raise NotBegun(f"{own.id}: it cannot be copied: {error}") from error

    yield from do(host, f"copy {about.toplevel} to {own.id}", act)


def _require_taken(own: HostRun) -> None:
    """FleetError when the machine would not take what nobody signed whom it trusts."""
    connector = connector_of(host)
    plain = own.kind is Kind.SYSTEM and connector.access is Access.SHELL and connector.data["ssh_user"] != "root"
    if own.options.sign_with or not plain:
        return
    asked = shell(host, shlex.join(nix.STORE_INFO), what="asking its store whom it trusts")
    if not nix.trusts_us(asked):
        user = connector.data["ssh_user"]
        raise FleetError(
            f"its store takes nothing unsigned from {user}; add {user} to nix.settings.trusted-users there, or say "
            "sign_with=KEY_FILE, whose public half is in its trusted-public-keys"
        )


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

    assert about is not None
    if options.goal is Goal.DRY_ACTIVATE:
        yield from do(host, summary, lambda: _dry_activate(own, about))
        return
    wanted = Wanted(about.toplevel, about.hostname or None, about.revision)

    def act() -> None:
        with asked.roles[options.role or own.id]:
            if why := options.max_fail.holds(options.wave, asked.failed, len(asked.selected)):
                own.end(Outcome.HELD, why)
                raise NotBegun(f"{own.id} is held: {why}")
            try:
                if _is_triggered():
                    _trigger(own, about)
                elif options.engine is Engine.GUARDED:
                    activate_on(host, asked, own, wanted)
                else:
                    rebuild_on(host, own, about.toplevel, options.goal, options.build_host, options.specialisation)
            except (FleetError, OSError):
                asked.failed[own.id] = options.wave
                raise

    yield from do(host, summary, act)


def _is_triggered() -> bool:
    return connector_of(host).access is Access.TRIGGER


def _trigger(own: HostRun, about: Evaluated) -> None:
    """Tell the machine to pull; its command says in its last line what runs then. FleetError when that is another."""
    own.enter("activate")
    ok, output = connector_of(host).forced("trigger", own.options.activation_deadline)
    lines = [line for line in output.stdout_lines if line.strip()]
    own.found(log=[*lines, *output.stderr_lines][-20:])
    if not ok:
        raise FleetError(f"{own.id}: its command failed: {([*lines, *output.stderr_lines] or ['no word'])[-1]}")
    runs = lines[-1] if lines and nix.is_store_path(lines[-1]) else None
    own.found(current=runs)
    if runs != about.toplevel:
        raise FleetError(
            f"{own.id}: it ran its command, and runs {runs or 'it does not say what'}, not {about.toplevel}"
        )
    own.end(Outcome.DEPLOYED)


def _dry_activate(own: HostRun, about: Evaluated) -> None:
    """Say what would be stopped, started and reloaded; switch-to-configuration's own words."""
    own.enter("dry-activate")
    script = f"{about.toplevel}/bin/switch-to-configuration dry-activate 2>&1"
    said = as_root(host, script, what="dry-activate").splitlines()
    for line in said:
        host.log(line)
    own.found(services=said)
    own.end(Outcome.PLANNED)
