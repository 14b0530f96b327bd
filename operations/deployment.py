"""A deployment, row by row: reach, evaluate, build, show, copy, and on each machine activate, prove, keep or go back.

What one row finds the next ones use; it is in the run (`nixherd.deploy.run`) and in its journal. The rows before
`copy` change nothing, so that `--dry` ends there.
"""

from contextlib import suppress
from functools import partial
from itertools import count
from typing import Any

from pyinfra import host
from pyinfra.api import operation
from pyinfra.api.host import Host

from nixherd.deploy import commit_policy as gate
from nixherd.deploy.goal import Goal
from nixherd.deploy.options import Engine, Options
from nixherd.deploy.protocol import Kind, hold
from nixherd.deploy.report import Outcome
from nixherd.deploy.run import HostRun
from nixherd.deploy.waves import label
from nixherd.errors import FAILURES, FleetError, NotBegun, NotWell, Usage
from nixherd.faults import foreseen
from nixherd.fleet import health_checks
from nixherd.fleet.models import Access
from nixherd.fleet.revisions import noted_of, shown
from nixherd.nix import commands as nix
from nixherd.nix.build_log import BuildProgress
from nixherd.nix.commands import Evaluated
from nixherd.nix.evaluator import as_of
from nixherd.nix.evaluator import evaluate as evaluate_all
from nixherd.session import Session
from operations.activating import activate as activate_on
from operations.building import build_for, builder_of
from operations.deploy_run import acting, ask, looking, require_root, run_of
from operations.rebuilding import rebuild_on
from operations.remote import copy_closure
from operations.showing import resolved, show_changes
from operations.speaking import Wanted, note_alone
from operations.steps import (
    Commands,
    as_root,
    connector_of,
    do,
    executing,
    failed,
    fleet_host,
    session_of,
)
from operations.wellness import wrong_with


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
    before = {name: own.state.get(name) for name in kept}
    own.found(address=place.address, old=own.state["current"], old_revision=own.state["revision"], before=before)
    return f"{own.id} runs {own.state['current']}"


@operation()
def evaluate() -> Commands:
    """What the flake says of the host; one evaluation for all that are reached."""
    yield from looking(_evaluate)


def _evaluate(own: HostRun) -> str:
    own.enter("evaluate")
    session = session_of(host)
    _gate(own)
    about = own.about = evaluate_all(session, _reached(host), own.id)
    state = own.state
    own.found(new=about.toplevel, revision=about.revision)
    checks = health_checks.parse(f"{own.id}: nixherd.healthChecks", about.health)
    own.checks = checks + fleet_host(host).health_checks
    if state is not None and _is_done(own.options, state, about.toplevel):
        if problem := wrong_with(host, own, state["current"]):
            why = f"it {_has(own.options, state)} already; {problem}; nothing was activated"
            own.end(Outcome.UNCHANGED_NOT_WELL, why)
            run_of(host).failed[own.id] = own.options.wave
            raise NotWell(f"{own.id}: {why}")
        if _has_moved_on(own.options, own.state, about):
            return _of_another_revision(own, about)
        own.end(Outcome.UNCHANGED)
        return f"{own.id} {_has(own.options, state)} already"
    if not executing(host) and state is not None and _differs_by_revision(own):
        own.found(revision_only=True)
    return f"{own.id}: {about.toplevel} is to come"


def _gate(own: HostRun) -> None:
    """FleetError unless what is deployed is committed, and signed where that is required."""
    session, options = session_of(host), own.options
    dirty = session.once("dirty", lambda: gate.uncommitted(session.fleet.path))
    session.once("told", lambda: own.journal.note("run", dirty=dirty))
    if not options.allow_dirty or options.require_signed:
        gate.require_committed(session.fleet.path, dirty)
    if session.gate is not None:  # which was asked before anything of the tree was evaluated
        session.once("told verified", lambda: own.journal.note("run", verified=session.verified.revision))
    elif options.require_signed:
        raise Usage(
            f"{own.id}: require_signed holds for the whole fleet; say it in group_data/all.py, in hosts.nix, or with "
            "--data require_signed=true"
        )


def _is_done(options: Options, state: Any, toplevel: str) -> bool:
    wanted = f"{toplevel}/specialisation/{options.specialisation}" if options.specialisation else toplevel
    runs = state["current"] == wanted or (options.specialisation and resolved(wanted) == state["current"])
    profile = state["profile"] == toplevel
    return bool({Goal.SWITCH: runs and profile, Goal.TEST: runs, Goal.BOOT: profile}.get(options.goal, False))


def _has(options: Options, state: Any) -> str:
    """What the machine said that it has: with goal=boot only its next boot was looked at."""
    return f"boots {state['profile']}" if options.goal is Goal.BOOT else f"runs {state['current']}"


def _has_moved_on(options: Options, state: Any, about: Evaluated) -> bool:
    """Whether what runs there is what another revision, the flake's present one, comes to as well."""
    runs = options.goal is not Goal.BOOT or state["current"] == about.toplevel
    return runs and about.revision not in (None, state["revision"])


def _of_another_revision(own: HostRun, about: Evaluated) -> str:
    assert own.state is not None
    own.found(revision_only=True)
    own.note_only = True
    return f"{own.id} {_has(own.options, own.state)} already: revision only, {_change(own)}"


def _change(own: HostRun) -> str:
    """Of revisions."""
    return f"{shown(own.state['revision'] if own.state else None)} → {shown(own.about.revision if own.about else None)}"


def _differs_by_revision(own: HostRun) -> bool:
    """Whether what is to come is another system for its configurationRevision alone. False also where nobody can say.

    It is, where the flake's host as of the revision that runs there is what runs there. Those that run one revision
    are evaluated together, as far as they are known when the first one asks.
    """
    assert own.about is not None
    assert own.state is not None
    running = own.state.get("configuration_revision")
    if not running or own.about.configuration_revision in (None, running):
        return False
    session, asked, found = session_of(host), run_of(host), dict[str, str]()
    for attempt in count():
        states = {each.id: each.state for each in asked.hosts.values() if each.state and each.id not in found}
        alike = sorted(id for id, state in states.items() if state.get("configuration_revision") == running)
        if own.id not in alike:
            return found.get(own.id) == str(own.state["current"])
        found |= session.once(("as of", running, attempt), partial(_as_of, session, alike, running))
    raise AssertionError


def _as_of(session: Session, ids: list[str], revision: str) -> dict[str, str]:
    return dict.fromkeys(ids, "") | dict(as_of(session, ids, revision))


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
    if own.note_only:
        return f"{own.id} has it already"
    own.enter("build")
    assert own.about is not None
    if _is_built_later(own):
        return f"{own.id} is built on {own.options.build_on} when it is deployed"
    asked = run_of(host).hosts
    alike = [about for about in _to_come(host) if asked[about.host_id].options.build_on == own.options.build_on]
    wanted = {about.host_id: [about.toplevel_drv] for about in alike}
    progress, journal = BuildProgress(), own.journal

    def tell(line: str) -> None:
        if said := progress.feed(line):
            journal.note("said", text=said)  # in a thread of its own, which has no `host`

    build_for(host, own, wanted, tell)
    return f"{own.id}: {own.about.toplevel} is built"


def _is_built_later(own: HostRun) -> bool:
    """Whether another machine builds it, and not in this row: a plan leaves nothing there, nixos-rebuild does it."""
    elsewhere = builder_of(host, own.options.build_on) is not None
    return elsewhere and (not executing(host) or own.options.engine is Engine.NIXOS_REBUILD)


def _to_come(host: Host) -> list[Evaluated]:
    """What is to come to the hosts that are reached, but for those that have it already, or build it unasked."""
    asked, reached, session = run_of(host), _reached(host), session_of(host)

    def found() -> list[Evaluated]:
        to_come = []
        for host_id in reached:
            with suppress(*FAILURES):  # said when it is that host's turn
                about = evaluate_all(session, reached, host_id)
                known = asked.hosts.get(host_id)
                if known and known.state and not _is_done(known.options, known.state, about.toplevel):
                    to_come.append(about)
        return to_come

    return session.once(("to come", *reached), found)  # every host asks


@operation()
def show() -> Commands:
    """What changes: packages by version and size, and whether a boot is needed for some of it."""
    yield from looking(_show)


def _show(own: HostRun) -> str:
    if _is_triggered():
        return f"{own.id} is not asked what changes"
    if own.note_only:
        return f"{own.id}: revision only, {_change(own)}"
    if _is_built_later(own):
        return f"{own.id}: what changes is known when it is built"
    show_changes(host, own, _to_come(host))
    assert own.state is not None
    assert own.about is not None
    return f"{own.id}: {own.state['current']} → {own.about.toplevel}"


@operation()
def copy() -> Commands:
    """Copy what is missing of it to the machine, where it is no garbage until the end."""
    yield from acting(_copy)


def _copy(own: HostRun) -> Commands:
    about = own.about
    if _is_triggered():
        host.noop(f"{own.id} pulls by itself")
        return
    if own.note_only:
        host.noop(f"{own.id} has it already")
        return
    if _copies_by_itself(own):
        host.noop(f"{own.id}: nixos-rebuild copies")
        return
    if builder_of(host, own.options.build_on) is host:
        host.noop(f"{own.id} builds it itself")
        return
    if not executing(host):
        yield from do(host, f"copy {about.toplevel if about else 'the new system'} to {own.id}", lambda: None)
        return
    assert about is not None

    def act() -> None:
        require_root(own)
        own.enter("copy")
        try:
            guarded = own.options.engine is Engine.GUARDED
            if guarded and own.kind is Kind.SYSTEM and connector_of(host).access is Access.SHELL:
                as_root(host, hold(about.toplevel), what="holding it")
            copy_closure(host, [about.toplevel], substitute=own.options.substitute)
        except FAILURES as error:
            foreseen(error, f"{own.id}: copying it")
            raise NotBegun(f"{own.id}: it cannot be copied: {error}") from error

    yield from do(host, f"copy {about.toplevel} to {own.id}", act)


def _copies_by_itself(own: HostRun) -> bool:
    """Whether nixos-rebuild copies what is to run. As a plain user it can do so only what others have signed."""
    connector = connector_of(host)
    is_plain = not connector.here and connector.data["ssh_user"] != "root"
    return own.options.engine is Engine.NIXOS_REBUILD and (_is_built_later(own) or not is_plain)


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
    if own.note_only:
        summary = f"note the revision of what {own.id} runs, {_change(own)}"
    if not executing(host):
        if own.note_only:
            own.end(Outcome.REVISION_ONLY, _change(own))
        else:
            own.end(Outcome.PLANNED, _unseen(own))
        yield from do(host, summary, lambda: None)
        return

    assert about is not None
    if options.goal is Goal.DRY_ACTIVATE and options.engine is Engine.GUARDED:
        yield from do(host, summary, lambda: _dry_activate(own, about))
        return
    wanted = Wanted(about.toplevel, about.hostname or None, about.revision)

    def act() -> None:
        with asked.turn(own, options.role or own.id):
            if _is_triggered():
                _trigger(own, about)
            elif own.note_only:
                require_root(own)
                note_alone(host, asked, own, wanted)
            elif options.engine is Engine.GUARDED:
                activate_on(host, asked, own, wanted)
            else:
                rebuild_on(host, own, about, options.goal, options.build_on, options.specialisation)

    yield from do(host, summary, act)


def _unseen(own: HostRun) -> str | None:
    """Why a plan does not show what changes, where it does not."""
    if _is_triggered():
        return "it pulls its configuration itself, and is not asked what changes"
    return f"built on {own.options.build_on}, so what changes is not known yet" if _is_built_later(own) else None


def _is_triggered() -> bool:
    return connector_of(host).access is Access.TRIGGER


def _trigger(own: HostRun, about: Evaluated) -> None:
    """Tell the machine to pull; its command says in its last line what runs then. FleetError when that is another.

    Before that it may say what ran, and what it notes of either: `was=` and `noted=`, a path or a line of its notes.
    """
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
            f"{own.id}: it ran its command, and runs {runs or 'what it does not say'}, not {about.toplevel}"
        )
    said = dict(line.split("=", 1) for line in lines if "=" in line)
    was, noted = said.get("was", ""), noted_of(runs, said.get("noted"))
    before = noted_of(runs, was)
    own.found(noted=noted)
    if about.revision and noted != about.revision:
        own.found(unnoted=f"the machine notes {shown(noted) if noted else 'none'}")
    if was.split(" ", 1)[0] != runs:
        own.end(Outcome.DEPLOYED)
    elif noted == before:
        own.end(Outcome.UNCHANGED)
    else:
        own.end(Outcome.REVISION_ONLY, f"{shown(before)} → {shown(noted)}")


def _dry_activate(own: HostRun, about: Evaluated) -> None:
    """Say what would be stopped, started and reloaded; switch-to-configuration's own words."""
    own.enter("dry-activate")
    script = f"{about.toplevel}/bin/switch-to-configuration dry-activate 2>&1"
    said = as_root(host, script, what="dry-activate").splitlines()
    for line in said:
        host.log(line)
    own.found(services=said)
    own.end(Outcome.PLANNED)
