"""What a new system changes on a machine: its packages by version and size, and what takes effect with a boot alone."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from pyinfra.api.host import Host

from facts.nix import Closure
from facts.nixos import BOOTED_PARTS
from nixherd.deploy.inhibitors import INHIBITORS, INIT, between
from nixherd.deploy.run import HostRun
from nixherd.fleet.models import Access
from nixherd.nix import closure_diff as closures
from nixherd.nix import commands as nix
from nixherd.nix.commands import Evaluated
from nixherd.process import run
from nixherd.sizes import human
from operations.building import builder_of, parts_there, said_there
from operations.deploy_run import run_of
from operations.steps import connector_of, executing, session_of

DEADLINE = 300  # seconds for a store to list a closure

Sizes = Mapping[str, int]
Parts = Mapping[str, str | None]


def show_changes(host: Host, own: HostRun, to_come: Sequence[Evaluated]) -> None:
    """Say and note it; `to_come` is what was built for all hosts of the run."""
    assert own.about is not None
    assert own.state is not None
    own.enter("show")
    parts: Parts
    if builder_of(host, own.options.build_on) is host:
        before, after, parts = _there(host, own)
        coming = said_there(host, own.coming)
    else:
        before, after = _closures(host, own, to_come)
        parts = {part: resolved(f"{own.about.toplevel}/{part}") for part in BOOTED_PARTS}
        coming = {name: _text(Path(own.coming, name)) for name in (INHIBITORS, INIT)}
    if before is not None:
        diff = closures.diff(before, after)
        changes = [str(change) for change in diff.changes]
        own.found(diff=changes, size_before=diff.before, size_after=diff.after)
        for line in (*changes, f"closure {human(diff.before)} → {human(diff.after)}"):
            host.log(line)
    booted = own.state["parts"]
    own.reboot = tuple(sorted(part for part in booted if parts.get(part) not in (None, booted[part])))
    own.found(reboot_for=own.reboot)
    if own.reboot:
        host.log(f"needs a reboot for: {', '.join(own.reboot)}")
    own.inhibited = between({INHIBITORS: own.state.get("inhibitors"), INIT: own.state.get("init")}, coming)
    own.found(inhibited=own.inhibited)
    if own.inhibited:
        host.log(f"cannot be switched to without a boot: {'; '.join(own.inhibited)}")
    if not executing(host):
        own.found(services="not copied, services unknown")


def _text(path: Path) -> str | None:
    return path.read_text(errors="replace") if path.is_file() else None


def _closures(host: Host, own: HostRun, to_come: Sequence[Evaluated]) -> tuple[Sizes | None, Sizes]:
    """Of what runs, and of what is to come. None where neither we nor the machine can say."""
    assert own.about is not None
    assert own.state is not None
    current: str | None = own.state["current"]
    built = sorted({about.toplevel for about in to_come if Path(about.toplevel).exists()})
    running = {each.state["current"] for each in run_of(host).hosts.values() if each.state and each.state["current"]}
    here = session_of(host).once(("closures", *built), lambda: _local([*built, *sorted(running)]))
    if current is None:
        return {}, here[own.about.toplevel]
    if current in here:
        return here[current], here[own.about.toplevel]
    if connector_of(host).access is not Access.SHELL:
        return None, here[own.about.toplevel]
    return _closure_there(host, current), here[own.about.toplevel]


def _there(host: Host, own: HostRun) -> tuple[Sizes | None, Sizes, Parts]:
    """The same of what was built on the machine itself, and where the parts of that lead."""
    assert own.about is not None
    assert own.state is not None
    current, built = own.state["current"], own.about.toplevel
    return _closure_there(host, current) if current else {}, _closure_there(host, built), parts_there(host, built)


def _closure_there(host: Host, path: str) -> Sizes:
    found: dict[str, int] = host.get_fact(Closure, path=path, _timeout=DEADLINE)
    return found


def _local(paths: Iterable[str]) -> dict[str, Sizes]:
    """Sizes by path of the closures of these that are in the store here."""
    roots = [path for path in paths if Path(path).exists()]
    graph = nix.parse_path_info(run(nix.path_info(roots), timeout=DEADLINE).stdout)
    return {root: _closure(graph, root) for root in roots}


def _closure(graph: Mapping[str, tuple[int, tuple[str, ...]]], root: str) -> Sizes:
    found: dict[str, int] = {}
    left = [root]
    while left:
        path = left.pop()
        if path not in found:
            found[path], references = graph[path]
            left.extend(references)
    return found


def resolved(path: str) -> str | None:
    """Where a path of the store here leads, None when it is not there."""
    return str(Path(path).resolve()) if Path(path).exists() else None
