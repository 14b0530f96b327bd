"""What a new system changes on a machine: packages by version and size, and what takes effect with a boot alone."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from nixherd.deploy.inhibitors import INHIBITORS, INIT, between
from nixherd.deploy.machine import Machine, output_of
from nixherd.deploy.plan import resolved, running_of
from nixherd.deploy.run import HostRun, Rollout
from nixherd.deploy.running import BOOTED_PARTS
from nixherd.deploy.values import Built, Changes
from nixherd.fleet.models import Access
from nixherd.nix import closure_diff as closures
from nixherd.nix import commands as nix
from nixherd.nix.commands import Evaluated
from nixherd.process import run
from nixherd.sizes import human

DEADLINE = 300.0  # seconds for a store to list a closure

Sizes = Mapping[str, int]


def show(rollout: Rollout, host_run: HostRun, built: Built, to_come: Sequence[Evaluated]) -> Built:
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
        difference = closures.diff(before, after)
        lines = [str(change) for change in difference.changes]
        host_run.note(diff=lines, size_before=difference.before, size_after=difference.after)
        for line in (*lines, f"closure {human(difference.before)} → {human(difference.after)}"):
            machine.say(line)
    booted = running.parts
    reboot_for = tuple(sorted(part for part in booted if parts.get(part) not in (None, booted[part])))
    host_run.note(reboot_for=reboot_for)
    if reboot_for:
        machine.say(f"needs a reboot for: {', '.join(reboot_for)}")
    inhibitors = between({INHIBITORS: running.inhibitors, INIT: running.init}, texts)
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
    here = rollout.closures(tuple(built), lambda: _local([*built, *running]))
    if current is None:
        return {}, here[toplevel]
    if current in here:
        return here[current], here[toplevel]
    if machine.access is not Access.SHELL:
        return None, here[toplevel]
    return _closure_there(machine, current), here[toplevel]


def _closure_there(machine: Machine, path: str) -> Sizes:
    script = f"[ ! -e {path} ] || {' '.join(nix.closure_sizes(path))}"
    return closures.parse_path_info(output_of(machine, script, what="listing a closure", deadline=DEADLINE))


def _parts_there(machine: Machine, system: str) -> dict[str, str]:
    """Where what takes effect with a boot alone leads in a system that was built on this machine, by name."""
    script = (
        f"for part in {' '.join(BOOTED_PARTS)}; do "
        f'[ ! -e {system}/$part ] || echo "$part $(readlink -f {system}/$part)"; done'
    )
    lines = output_of(machine, script, what="looking at what was built").splitlines()
    return dict(line.split(" ", 1) for line in lines)


def _text_there(machine: Machine, path: str) -> str | None:
    script = f"cat {path} 2>/dev/null || true"
    return output_of(machine, script, what="looking at what was built") or None


def _local(paths: Iterable[str]) -> dict[str, Sizes]:
    """Sizes by path of the closures of these that are in the store here."""
    roots = [path for path in paths if Path(path).exists()]
    graph = nix.parse_path_info(run(nix.path_info(roots), timeout=DEADLINE).stdout)
    return {root: _closure(graph, root) for root in roots}


def _closure(graph: Mapping[str, tuple[int, tuple[str, ...]]], root: str) -> Sizes:
    sizes: dict[str, int] = {}
    left = [root]
    while left:
        path = left.pop()
        if path not in sizes:
            sizes[path], references = graph[path]
            left.extend(references)
    return sizes
