"""What is to be done on each machine: what runs there, against what the flake says."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import count
from pathlib import Path

from nixherd.deploy import commit_policy as gate
from nixherd.deploy.goal import Goal
from nixherd.deploy.health import unwell
from nixherd.deploy.options import Options
from nixherd.deploy.report import Outcome
from nixherd.deploy.run import HostRun, Rollout
from nixherd.deploy.running import Running, ask_running
from nixherd.deploy.values import Built, Copied, Planned, PlannedToPull, Reached, ReachedToPull
from nixherd.errors import FAILURES, NotWell, Usage
from nixherd.fleet import health_checks
from nixherd.fleet.models import Access
from nixherd.nix.commands import Evaluated
from nixherd.nix.evaluator import Evaluator, Source


def reach(host_run: HostRun) -> Reached | ReachedToPull:
    """Connect to the machine, and ask what runs on it: one round trip."""
    host_run.enter("reach")
    address = host_run.machine.reconnect(if_lost=True)
    if host_run.machine.access is Access.TRIGGER:
        host_run.note(address=address)
        return ReachedToPull(address)
    running = ask_running(host_run.machine, host_run.kind)
    before = {
        "booted": running.booted,
        "hostname": running.hostname,
        "failed": running.failed,
        "boot_id": running.boot_id,
    }
    host_run.note(address=address, old=running.current, old_revision=running.revision, before=before)
    return Reached(address, running)


def plan(
    evaluator: Evaluator, rollout: Rollout, host_run: HostRun, reached: Reached | ReachedToPull, hosts: Sequence[str]
) -> Planned | PlannedToPull:
    """Compare what runs with what the flake says; `hosts` are those that are evaluated together.

    A machine that has it already ends here. NotWell when it has, and something is wrong with it.
    """
    host_run.enter("evaluate")
    _require_committed(evaluator.source, rollout, host_run)
    config = evaluator.evaluate(hosts, host_run.id)
    host_run.note(new=config.toplevel, revision=config.revision)
    if isinstance(reached, ReachedToPull):
        return PlannedToPull(reached, config)
    checks = health_checks.parse(f"{host_run.id}: nixherd.healthChecks", config.health) + host_run.host.health_checks
    running = reached.running
    if not is_done(host_run.options, running, config.toplevel):
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


def _require_committed(source: Source, rollout: Rollout, host_run: HostRun) -> None:
    """FleetError unless what is deployed is committed, and signed where that is required."""
    options = host_run.options
    dirty = rollout.dirty(lambda: gate.uncommitted(host_run.fleet_path))
    rollout.noted("dirty", lambda: rollout.journal.note("run", dirty=dirty))
    if not options.allow_dirty or options.require_signed:
        gate.require_committed(host_run.fleet_path, dirty)
    if isinstance(source, gate.Verified):  # before anything of the tree was evaluated
        rollout.noted("verified", lambda: rollout.journal.note("run", verified=source.revision))
    elif options.require_signed:
        raise Usage(
            f"{host_run.id}: require_signed holds for the whole fleet; say it in group_data/all.py, in hosts.nix, or "
            "with --data require_signed=true"
        )


def is_done(options: Options, running: Running, toplevel: str) -> bool:
    """Whether a machine has what is asked for already."""
    chosen = options.specialisation
    system = f"{toplevel}/specialisation/{chosen}" if chosen else toplevel
    runs = running.current == system or bool(chosen and resolved(system) == running.current)
    boots = running.profile == toplevel
    return {Goal.SWITCH: runs and boots, Goal.TEST: runs, Goal.BOOT: boots}.get(options.goal, False)


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

    def configs() -> Iterator[Evaluated]:
        for host_id in hosts:
            with suppress(*FAILURES):  # said when it is that host's turn
                config = evaluator.evaluate(hosts, host_id)
                host_run = rollout.hosts.get(host_id)
                running = running_of(host_run) if host_run else None
                if host_run and running and not is_done(host_run.options, running, config.toplevel):
                    yield config

    # every host asks; while planning they are reached one after the other
    known = tuple(host_id for host_id in hosts if host_id in rollout.hosts)
    return rollout.to_come((tuple(hosts), known), lambda: list(configs()))


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
        answers |= rollout.as_of((revision, attempt), partial(_as_of, evaluator, alike, revision))
    if answers.get(host_run.id) == str(planned.reached.running.current):
        host_run.note(revision_only=True)


def _as_of(evaluator: Evaluator, ids: Sequence[str], revision: str) -> dict[str, str]:
    return dict.fromkeys(ids, "") | dict(evaluator.as_of(ids, revision))
