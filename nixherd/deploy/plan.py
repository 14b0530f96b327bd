"""What is to be done on each machine: what runs there against what the flake says, and what that changes."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import count
from pathlib import Path

from nixherd.base.errors import FAILURES, NotWell, Usage
from nixherd.base.names import human
from nixherd.base.process import run
from nixherd.deploy import commit_policy as gate
from nixherd.deploy.health import unwell
from nixherd.deploy.machine import Machine, look, output_of
from nixherd.deploy.options import Goal, Options
from nixherd.deploy.report import Outcome
from nixherd.deploy.rollout import (
    Built,
    Changes,
    Copied,
    HostRun,
    Planned,
    PlannedToPull,
    Reached,
    ReachedToPull,
    Rollout,
)
from nixherd.deploy.running import BOOTED_PARTS, Running, ask_running, has_it, specialised
from nixherd.fleet import health_checks
from nixherd.fleet.git import Repository
from nixherd.fleet.health_checks import Check
from nixherd.fleet.models import Access
from nixherd.nix import builder
from nixherd.nix import commands as nix
from nixherd.nix.commands import Evaluated
from nixherd.nix.evaluator import Evaluator, Source


def reach(host_run: HostRun) -> Reached | ReachedToPull:
    """Connect to the machine, and ask what runs on it: one round trip."""
    host_run.enter("reach")
    address = host_run.machine.reconnect(if_lost=True)
    if host_run.machine.access is Access.TRIGGER:
        host_run.note(address=address)
        return ReachedToPull(address)
    running = look(host_run.machine, lambda: ask_running(host_run.machine, host_run.kind))
    before = {name: getattr(running, name) for name in ("booted", "hostname", "failed", "boot_id")}
    host_run.note(address=address, old=running.current, old_revision=running.revision, before=before)
    return Reached(address, running)


def plan(
    evaluator: Evaluator, rollout: Rollout, host_run: HostRun, reached: Reached | ReachedToPull, hosts: Sequence[str]
) -> Planned | PlannedToPull:
    """Compare what runs with what the flake says; `hosts` are those that are evaluated together.

    Whether that may be deployed is asked before, by `require_committed`. A machine that has it already ends here.
    NotWell when it has, and something is wrong with it.
    """
    config = evaluator.evaluate(hosts, host_run.id)
    host_run.note(new=config.toplevel, revision=config.revision)
    if isinstance(reached, ReachedToPull):
        return PlannedToPull(reached, config)
    checks = checks_of(host_run, config, host_run.options.specialisation)
    running = reached.running
    if not (is_done(host_run.options, running, config.toplevel) or _runs_it(host_run, running, config.toplevel)):
        if running.hold:
            host_run.note(hold=running.hold)
            host_run.say(f"it will be held: {running.hold}")
        return Planned(reached, config, checks)
    problem, running = unwell(host_run.machine, host_run.kind, running, checks, str(running.current))
    if problem:
        why = f"it {what_it_has(host_run.options, running)} already; {problem}; nothing was activated"
        host_run.end(Outcome.UNCHANGED_NOT_WELL, why)
        rollout.failed[host_run.id] = host_run.options.wave
        raise NotWell(f"{host_run.id}: {why}")
    reached = Reached(reached.address, running)
    if _is_another_revision(host_run.options, running, config):
        host_run.note(revision_only=True)
        return Planned(reached, config, checks, revision_only=True)
    host_run.end(Outcome.UNCHANGED)
    return Planned(reached, config, checks)


def checks_of(host_run: HostRun, config: Evaluated, specialisation: str | None) -> tuple[Check, ...]:
    """The health checks of a host: those of its configuration, or of the specialisation that is to run, and those of
    its entry. Usage for one that is none.
    """
    special = config.health_of.get(specialisation) if specialisation else None
    health = config.health if special is None else special
    return health_checks.parse(f"{host_run.id}: nixherd.healthChecks", health) + host_run.host.health_checks


def require_committed(source: Source, rollout: Rollout, host_run: HostRun) -> None:
    """FleetError unless what is deployed is committed, and signed where that is required."""
    host_run.enter("evaluate")
    options = host_run.options
    with rollout.dirty as dirty:
        if dirty.is_empty:
            repository = Repository.around(Path(host_run.fleet_path))
            files = repository.changed(["."]) if repository else []
            rollout.journal.note("run", dirty=files)
            dirty.value = files
    if not options.allow_dirty or options.require_signed:
        gate.require_committed(host_run.fleet_path, dirty.value)
    if isinstance(source, gate.Verified):  # before anything of the tree was evaluated
        with rollout.noted as noted:
            if noted.is_empty:
                rollout.journal.note("run", verified=source.revision)
                noted.value = None
    elif options.require_signed:
        raise Usage(
            f"{host_run.id}: require_signed holds for the whole fleet; say it in group_data/all.py, in hosts.nix or "
            "nixherd.nix, or with --data require_signed=true"
        )


def is_done(options: Options, running: Running, toplevel: str) -> bool:
    """Whether a machine has what is asked for already; with a specialisation, that one runs."""
    if options.specialisation is None:
        return has_it(running, toplevel, options.goal)
    system = f"{toplevel}/specialisation/{options.specialisation}"
    return has_it(running, toplevel, options.goal, {system, resolved(system) or system})


def _runs_it(host_run: HostRun, running: Running, toplevel: str) -> bool:
    """Whether a specialisation runs of which only the machine can say where it leads: its system is not here."""
    chosen = host_run.options.specialisation
    if chosen is None or running.current == toplevel or host_run.machine.access is not Access.SHELL:
        return False
    system = specialised(host_run.machine, toplevel, chosen)
    return system is not None and has_it(running, toplevel, host_run.options.goal, {system})


def what_it_has(options: Options, running: Running) -> str:
    """What the machine said that it has: with goal=boot only its next boot was looked at."""
    return f"boots {running.profile}" if options.goal is Goal.BOOT else f"runs {running.current}"


def resolved(path: str) -> str | None:
    """Where a path of the store here leads, None when it is not there."""
    return str(Path(path).resolve()) if Path(path).exists() else None


def _is_another_revision(options: Options, running: Running, config: Evaluated) -> bool:
    """Whether what runs there is what another revision, the flake's present one, comes to as well."""
    runs = options.goal is not Goal.BOOT or running.current == config.toplevel
    return runs and config.revision not in (None, running.revision)


def planned_of(host_run: HostRun) -> Planned | None:
    """What is planned for a host, however far it has come since; None before that, and for one that pulls."""
    value = host_run.value
    value = value.built if isinstance(value, Copied) else value
    value = value.planned if isinstance(value, Built) else value
    return value if isinstance(value, Planned) else None


def running_of(host_run: HostRun) -> Running | None:
    """What runs on a host that was reached, however far it has come since."""
    if isinstance(host_run.value, Reached):
        return host_run.value.running
    planned = planned_of(host_run)
    return planned.reached.running if planned else None


def to_come(evaluator: Evaluator, rollout: Rollout, hosts: Sequence[str]) -> list[Evaluated]:
    """What is to come to those of these hosts that were reached, but for those that have it already, or pull it."""
    # every host asks; while planning they are reached one after the other
    known = tuple(host_id for host_id in hosts if host_id in rollout.hosts)
    with rollout.to_come[tuple(hosts), known] as configs:
        if configs.is_empty:
            configs.value = list(_to_come(evaluator, rollout, hosts))
        return configs.value


def _to_come(evaluator: Evaluator, rollout: Rollout, hosts: Sequence[str]) -> Iterator[Evaluated]:
    for host_id in hosts:
        with suppress(*FAILURES):  # said when it is that host's turn
            config = evaluator.evaluate(hosts, host_id)
            host_run = rollout.hosts.get(host_id)
            running = running_of(host_run) if host_run else None
            if host_run and running and not is_done(host_run.options, running, config.toplevel):
                yield config


def why_unknown(host_run: HostRun, value: Copied | Built | Planned | PlannedToPull) -> str | None:
    """Why a plan does not show what changes, where it does not."""
    if isinstance(value, PlannedToPull):
        return "it pulls its configuration itself, and is not asked what changes"
    if isinstance(value, Planned):
        return f"built on {host_run.options.build_on}, so what changes is not known yet"
    return None


def note_if_revision_only(evaluator: Evaluator, rollout: Rollout, host_run: HostRun, planned: Planned) -> None:
    """Note where the system differs from the running one by its configurationRevision alone, as far as that is known.

    It does, where the flake's host as of the revision that runs there is what runs there. Those that run one revision
    are evaluated together, as far as they are known when the first one asks.
    """
    revision = planned.reached.running.configuration_revision
    if not revision or planned.config.configuration_revision in (None, revision):
        return
    answers: dict[str, str] = {}
    for attempt in count():
        running = {id: running_of(each) for id, each in rollout.hosts.items() if id not in answers}
        alike = sorted(id for id, each in running.items() if each and each.configuration_revision == revision)
        if host_run.id not in alike:
            break
        with rollout.as_of[revision, attempt] as systems:
            if systems.is_empty:
                systems.value = dict.fromkeys(alike, "") | dict(evaluator.as_of(alike, revision))
            answers |= systems.value
    if answers.get(host_run.id) == str(planned.reached.running.current):
        host_run.note(revision_only=True)


LISTING_DEADLINE = 300.0  # seconds for a store to list a closure

Sizes = Mapping[str, int]


def show_changes(rollout: Rollout, host_run: HostRun, built: Built, to_come: Sequence[Evaluated]) -> Built:
    """Say and note what a built system changes; `to_come` is what was built for all hosts of the rollout."""
    host_run.enter("show")
    machine, running, toplevel = host_run.machine, built.planned.reached.running, built.planned.config.toplevel
    chosen = host_run.options.specialisation
    coming = f"{toplevel}/specialisation/{chosen}" if chosen else toplevel
    parts: Mapping[str, str | None]
    if built.is_there:
        before: Sizes | None = _closure_there(machine, running.current) if running.current else {}
        after, parts = _closure_there(machine, toplevel), _parts_there(machine, toplevel)
        texts = {name: _text_there(machine, f"{coming}/{name}") for name in (INHIBITORS, INIT)}
    else:
        before, after = _closures(rollout, machine, running.current, toplevel, to_come)
        parts = {part: resolved(f"{toplevel}/{part}") for part in BOOTED_PARTS}
        texts = {name: _text(Path(coming, name)) for name in (INHIBITORS, INIT)}
    if before is not None:
        difference = builder.closure_diff(before, after)
        lines = [str(change) for change in difference.changes]
        host_run.note(diff=lines, size_before=difference.before, size_after=difference.after)
        for line in (*lines, f"closure {human(difference.before)} → {human(difference.after)}"):
            machine.say(line)
    booted = running.parts
    reboot_for = tuple(sorted(part for part in booted if parts.get(part) not in (None, booted[part])))
    host_run.note(reboot_for=reboot_for)
    if reboot_for:
        machine.say(f"needs a reboot for: {', '.join(reboot_for)}")
    inhibitors = inhibitors_between({INHIBITORS: running.inhibitors, INIT: running.init}, texts)
    host_run.note(inhibited=inhibitors)
    if inhibitors:
        machine.say(f"cannot be switched to without a boot: {'; '.join(inhibitors)}")
    return replace(built, changes=Changes(reboot_for, inhibitors))


def _text(path: Path) -> str | None:
    return path.read_text(errors="replace") if path.is_file() else None


def _closures(
    rollout: Rollout, machine: Machine, current: str | None, toplevel: str, to_come: Sequence[Evaluated]
) -> tuple[Sizes | None, Sizes]:
    """Of what runs, and of what is to come. None where neither we nor the machine can say."""
    built = sorted({config.toplevel for config in to_come if Path(config.toplevel).exists()} | {toplevel})
    states = (running_of(each) for each in rollout.hosts.values())
    running = sorted({state.current for state in states if state and state.current})
    with rollout.closures[tuple(built)] as sizes:
        if sizes.is_empty:
            roots = [path for path in (*built, *running) if Path(path).exists()]
            graph = nix.parse_path_info(run(nix.path_info(roots), timeout=LISTING_DEADLINE).stdout)
            sizes.value = {root: _closure(graph, root) for root in roots}
        here = sizes.value
    if current is None:
        return {}, here[toplevel]
    if current in here:
        return here[current], here[toplevel]
    if machine.access is not Access.SHELL:
        return None, here[toplevel]
    return _closure_there(machine, current), here[toplevel]


def _closure_there(machine: Machine, path: str) -> Sizes:
    listing = output_of(machine, builder.closure_listing(path), what="listing a closure", deadline=LISTING_DEADLINE)
    return builder.parse_listing(listing)


def _parts_there(machine: Machine, system: str) -> dict[str, str]:
    """Where what takes effect with a boot alone leads in a system that was built on this machine, by name."""
    parts, file = " ".join(BOOTED_PARTS), f"{system}/$part"
    script = f'for part in {parts}; do [ ! -e {file} ] || echo "$part $(readlink -f {file})"; done'
    lines = output_of(machine, script, what="looking at what was built").splitlines()
    return dict(line.split(" ", 1) for line in lines)


def _text_there(machine: Machine, path: str) -> str | None:
    script = f"cat {path} 2>/dev/null || true"
    return output_of(machine, script, what="looking at what was built") or None


def _closure(graph: Mapping[str, tuple[int, tuple[str, ...]]], root: str) -> Sizes:
    sizes: dict[str, int] = {}
    left = [root]
    while left:
        path = left.pop()
        if path not in sizes:
            sizes[path], references = graph[path]
            left.extend(references)
    return sizes


INHIBITORS, INIT = "switch-inhibitors", "init-interface-version"
Said = Mapping[str, str | None]


def inhibitors_between(running: Said, coming: Said) -> tuple[str, ...]:
    """A line for each, from what the files of these names say in both systems; None where the file does not exist."""
    before, after = (_parsed(each.get(INHIBITORS)) for each in (running, coming))
    common = sorted(before.keys() & after.keys())
    found = [f"{name}: {before[name]} → {after[name]}" for name in common if before[name] != after[name]]
    was, becomes = ((each.get(INIT) or "").strip() for each in (running, coming))
    if was and becomes and was != becomes:
        found.append(f"init: {was} → {becomes}")
    return tuple(found)


def _parsed(text: str | None) -> dict[str, object]:
    """As switch-to-configuration reads it: what is not a JSON object has none."""
    try:
        found = json.loads(text or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def dry_activate(host_run: HostRun, copied: Copied) -> None:
    """Say what would be stopped, started and reloaded: switch-to-configuration's own words."""
    host_run.enter("dry-activate")
    script = f"{copied.config.toplevel}/bin/switch-to-configuration dry-activate 2>&1"
    lines = output_of(host_run.machine, script, what="dry-activate", sudo=True).splitlines()
    for line in lines:
        host_run.machine.say(line)
    host_run.note(services=lines)
    host_run.end(Outcome.PLANNED)
