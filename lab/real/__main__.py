"""python -m lab.real NIXPKGS=/path [HOME_MANAGER=/path …]: evaluate the fleet with real inputs, without building it.

Each host (with its disko script), home and package is evaluated separately, then all by `nix flake check --no-build`.
What needs an input that is not given is an error. The exit status is 0 when everything evaluates without messages, 1
after an evaluation error, warning or failed assertion, and 2 for wrong arguments.
"""

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lab.errors import LabError
from lab.real.evaluation import Evaluation, ask, flake_check

_AS_A_HASH = ["--always", "--dirty", "--abbrev=12", "--match="]
FLEET = Path(__file__).resolve().parent.parent.parent / "fleet"


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="fleet-real", description="evaluate the fleet on a real nixpkgs")
    parser.add_argument("inputs", nargs="*", metavar="NAME=DIRECTORY", help="NIXPKGS=/path, HOME_MANAGER=/path, …")
    parser.add_argument("--fleet", type=Path, default=FLEET, help="the fleet's directory (default: the reference)")
    parser.add_argument("--jobs", type=int, default=2, help="evaluations at once, 1 GB each (default: 2)")
    options = parser.parse_args(arguments)
    try:
        if shutil.which("nix") is None:
            raise LabError("nix is not on PATH; make fleet-real brings one")
        if options.jobs < 1:
            raise LabError(f"--jobs {options.jobs}: must be at least 1")
        fleet = _directory("--fleet", str(options.fleet))
        sources = _sources(options.inputs, fleet)
        findings = _all(fleet, sources, options.jobs)
    except LabError as error:
        print(f"fleet-real: {error}", file=sys.stderr)
        return 2
    return 1 if findings else 0


def _directory(name: str, directory: str, is_flake: bool = True) -> Path:
    path = Path(directory).expanduser().resolve()
    if not path.is_dir():
        raise LabError(f"{name}={directory}: no such directory")
    if is_flake and not (path / "flake.nix").is_file():
        raise LabError(f"{name}={directory}: the directory has no flake.nix")
    return path


def _sources(arguments: Sequence[str], fleet: Path) -> dict[str, Path]:
    """Return the directories by the names of the fleet flake's inputs."""
    sources: dict[str, Path] = {}
    inputs = _declared(fleet)
    declared = {name.upper().replace("-", "_"): name for name in inputs}
    for word in arguments:
        variable, equals, path = word.partition("=")
        if not equals or not path:
            raise LabError(f"{word}: expected NAME=DIRECTORY, for example NIXPKGS=/path/to/nixpkgs")
        if variable not in declared:
            raise LabError(f"{word}: {fleet}/flake.nix has no such input; it has {', '.join(sorted(declared))}")
        if declared[variable] in sources:
            raise LabError(f"{word}: {variable} is given twice")
        sources[declared[variable]] = _directory(variable, path, inputs[declared[variable]])
    if "nixpkgs" not in sources:
        others = " ".join(f"[{variable}=/path]" for variable in sorted(declared) if declared[variable] != "nixpkgs")
        raise LabError(f"give the directory of a nixpkgs, nothing is fetched: NIXPKGS=/path {others}".rstrip())
    if not (sources["nixpkgs"] / "nixos" / "modules" / "module-list.nix").is_file():
        raise LabError(f"NIXPKGS={sources['nixpkgs']}: not a nixpkgs, it has no nixos/modules/module-list.nix")
    return sources


def _declared(fleet: Path) -> dict[str, bool]:
    """Return the inputs that do not follow another, by name, and whether each is a flake; evaluates only the flake's
    text.
    """
    expression = """flake: let all = flake.inputs or {}; in builtins.mapAttrs (_: input: input.flake or true)
      (removeAttrs all (builtins.filter (name: all.${name} ? follows) (builtins.attrNames all)))"""
    argv = ["nix", "eval", "--json", "--extra-experimental-features", "nix-command", "--file", str(fleet / "flake.nix")]
    done = subprocess.run([*argv, "--apply", expression], capture_output=True, text=True)
    if done.returncode:
        raise LabError(f"{fleet}/flake.nix: {done.stderr.strip().splitlines()[-1].strip()}")
    return dict(json.loads(done.stdout))


def _all(fleet: Path, sources: Mapping[str, Path], jobs: int) -> int:
    """Evaluate and print everything; return the number of problems."""
    print(f"fleet {_revision(fleet)} {fleet}")
    for name, path in sources.items():
        print(f"{name} {_revision(path)} {path}")
    names = ask("names", "", fleet, sources)
    if names.answer is None:
        raise LabError(f"{fleet}/flake.nix does not evaluate: {names.error.splitlines()[0]}")
    print(f"nixpkgs' lib.version is {names.answer['version']}\n", flush=True)
    targets = [(kind, name) for kind in ("host", "home", "package") for name in names.answer[kind]]
    if not targets:
        raise LabError(f"{fleet}/flake.nix has no host, no home and no package")
    evaluations = []
    with ThreadPoolExecutor(jobs) as pool:
        for evaluation in pool.map(lambda each: ask(each[0], each[1], fleet, sources), targets):
            evaluations.append(evaluation)
            _print(evaluation)
    evaluations.append(_checked(fleet, sources))
    _print(evaluations[-1])
    wrong = sum(evaluation.problems for evaluation in evaluations)
    warnings, failed = (
        sum(len(evaluation.warnings) for evaluation in evaluations),
        sum(len(evaluation.failed) for evaluation in evaluations),
    )
    errors = sum(bool(evaluation.error) for evaluation in evaluations)
    cpu, memory = (
        sum(evaluation.took.cpu for evaluation in evaluations),
        max(evaluation.took.memory for evaluation in evaluations),
    )
    print(
        f"\n{errors} errors, {failed} failing assertions, {warnings} warnings; CPU {cpu:.0f} s, at most {memory:.1f} GB"
    )
    return wrong


def _checked(fleet: Path, sources: Mapping[str, Path]) -> Evaluation:
    """Check the whole flake at once if all its inputs are given."""
    missing = sorted(set(_declared(fleet)) - set(sources))
    if missing:
        return Evaluation("flake check", "", error=f"not run: missing {', '.join(missing)}, and nothing is fetched")
    return flake_check(fleet, sources)


def _print(evaluation: Evaluation) -> None:
    ended = (
        "does not evaluate"
        if evaluation.error
        else "fails"
        if evaluation.failed
        else "warns"
        if evaluation.warnings
        else "ok"
    )
    disks = ", disko script" if evaluation.answer and evaluation.answer.get("disko") else ""
    label = f"{evaluation.kind} {evaluation.name}{disks}".strip()
    cost = evaluation.took
    print(f"{label:34} {ended:18} {cost.wall:6.1f} s  CPU {cost.cpu:5.1f} s  {cost.memory:4.1f} GB", flush=True)
    for line in _messages(evaluation):
        print(f"    {line}", flush=True)


def _messages(evaluation: Evaluation) -> Iterator[str]:
    for title, texts in (
        ("error", [evaluation.error] if evaluation.error else []),
        ("assertion", evaluation.failed),
        ("warning", evaluation.warnings),
    ):
        for text in texts:
            first, *more = text.strip().splitlines() or [""]
            yield f"{title}: {first}"
            yield from (f"  {line}" for line in more)


def _revision(path: Path) -> str:
    """Return the commit of the directory, with -dirty for local changes; only git knows it."""
    git = ["git", "-C", str(path), "-c", "core.fsmonitor=false"]
    for arguments in (["ls-files", "--error-unmatch", "flake.nix"], ["describe", *_AS_A_HASH]):
        done = subprocess.run([*git, *arguments], capture_output=True, text=True)
        if done.returncode:
            return "unknown revision"
    return done.stdout.strip()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
