"""The flake as it would be with some files changed: evaluated in a copy, before anything is done that it depends on.

The copy is a git repository, as the original is: a flake sees what git knows, and asks for its revision. What a host
does for the others, which its flake and its definition tell, is known before it goes.
"""

import json
import os
import shutil
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path

from nixherd.base.errors import FAILURES, FleetError, FleetInvalid, ProcessFailed
from nixherd.base.process import run
from nixherd.base.terminal import worded
from nixherd.deploy.options import wave_label, wave_of
from nixherd.fleet import git
from nixherd.fleet.git import Repository
from nixherd.fleet.load import load_fleet
from nixherd.fleet.models import Fleet, Host, Vm
from nixherd.fleet.revisions import Tree
from nixherd.nix import commands as nix
from nixherd.nix.errors import explain
from nixherd.nix.evaluator import DEADLINE, Evaluator

_LEFT_OUT = (".git", "result", "result-*", ".direnv")


def require_evaluates(
    evaluator: Evaluator, files: Mapping[str, bytes | None], repository: Repository | None, scratch: Path
) -> list[str]:
    """What is wrong with the changed flake and was wrong before, a line each.

    `files` are contents by path below the fleet's directory, None for those that are gone. FleetInvalid when the fleet
    would not be valid, FleetError for the first thing that is wrong with the changed flake alone.
    """
    root, view = Path(evaluator.path), scratch / "flake"
    below = copy(root, repository, files, view)
    if repository:
        git.begin(view)
    try:
        fleet = load_fleet(below)
    except FleetInvalid as error:
        raise FleetInvalid([f"after that, {_as_there(str(each), below, root)}" for each in error.findings]) from None
    if not (root / "flake.nix").is_file():
        return [f"{root}/flake.nix: missing; whether what is left evaluates is not known"]
    changed = Evaluator(fleet, evaluator.run, partial(Tree, fleet.path))
    now = {**_wrong_hosts(changed, fleet.hosts), **_wrong_outputs(changed)}
    before = _wrong_before(evaluator, now)
    for what, why in now.items():
        if what not in before:
            raise FleetError(f"{what}: would not evaluate any more: {_as_there(why, below, root)}")
    return [f"{what}: does not evaluate, as before: {_as_there(why, below, root)}" for what, why in now.items()]


def _wrong_hosts(evaluator: Evaluator, host_ids: Collection[str]) -> dict[str, str]:
    """The hosts that do not evaluate, and why."""
    found = {}
    for host_id in sorted(host_ids):
        try:
            evaluator.evaluate(tuple(sorted(host_ids)), host_id)
        except FAILURES as error:
            found[host_id] = str(worded(error, host_id)).removeprefix(f"{host_id}: ")
    return found


_CHECK = "nix flake check"


def _wrong_outputs(evaluator: Evaluator) -> dict[str, str]:
    """What nix says of all of the flake's outputs; it stops at the first."""
    try:
        run(nix.flake_evaluates(evaluator.flake), timeout=DEADLINE)
    except ProcessFailed as error:
        if not error.stderr:
            raise
        return {_CHECK: explain(error.stderr, Path(evaluator.path))}
    return {}


def _wrong_before(evaluator: Evaluator, now: Collection[str]) -> set[str]:
    """Which of these were wrong already."""
    if not now:
        return set()
    hosts = [what for what in now if what != _CHECK]
    before = set(_wrong_hosts(evaluator, hosts)) if hosts else set()
    return before | set(_wrong_outputs(evaluator) if _CHECK in now else {})


def _as_there(why: str, view: Path, root: Path) -> str:
    """A reason that names the copy's paths, as the operator knows them."""
    return why.replace(f"{view}/", "").replace(str(view), str(root))


def copy(root: Path, repository: Repository | None, files: Mapping[str, bytes | None], view: Path) -> Path:
    """Copy what the fleet's flake has to `view`, with these files changed; return the fleet's directory in it.

    That is all that git knows of, as it is now; everything, without git. A submodule stays away.
    """
    shutil.rmtree(view, ignore_errors=True)
    if repository is None:
        shutil.copytree(root, view, symlinks=True, ignore=shutil.ignore_patterns(*_LEFT_OUT))
    else:
        whole = Repository.around(repository.top)
        assert whole is not None, "its top is in it"
        for path in whole.tracked(["."]):
            source, target = repository.top / path, view / path
            if source.is_symlink() or source.is_file():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, target, follow_symlinks=False)
    below = view / (repository.prefix if repository else "")
    for path, content in files.items():
        (below / path).parent.mkdir(parents=True, exist_ok=True)
        (below / path).unlink(missing_ok=True)
        if content is not None:
            (below / path).write_bytes(content)
    return below


def duties_of(evaluator: Evaluator, fleet: Fleet, host: Host, guests: Sequence[Vm]) -> list[str]:
    """Return what the host does for the others, a line each; what the flake does not tell is said to be not known."""
    return [*_declared(fleet, host, guests), *_evaluated(evaluator, host)]


def _declared(fleet: Fleet, host: Host, guests: Sequence[Vm]) -> list[str]:
    lines = []
    for vm in guests:
        for name in ("purpose", "services", "notes"):
            if text := _joined(vm.extra.get(name)):
                lines.append(f"{vm.attribute}.{name} in the definitions: {text}")
    waves = {each.id: wave_of(each.id, *map(each.deployment.get, ("canary", "wave"))) for each in fleet.hosts.values()}
    mine = waves.pop(host.id)
    if waves and mine < min(waves.values()):
        lines.append(f"it is the only one of the {wave_label(mine)}: no host is deployed to before the others then")
    if host.hostname == os.uname().nodename:
        lines.append(f"the machine that this runs on is called {host.hostname} as well; is it that one?")
    return lines


def _evaluated(evaluator: Evaluator, host: Host) -> list[str]:
    if not host.is_nixos:
        return []
    try:
        found: dict[str, bool] = json.loads(
            evaluator.ask(nix.duties(evaluator.flake, host.attribute.name, host.attribute.output))
        )
    except FleetError as error:
        return [f"what it does for the others is not known: {error}"]
    return [f"it is {what}" for what, is_so in found.items() if is_so]


def _joined(value: object) -> str:
    each = value if isinstance(value, (list, tuple)) else [value]
    return ", ".join(" ".join(str(one).split()) for one in each if one)
