"""python -m lab.real NIXPKGS=/path [HOME_MANAGER=/path …]: the fleet on the real things, evaluated and not built.

Each host (with its disko script), home and package is evaluated by itself, then all by `nix flake check --no-build`.
An input that is not given is an error of what needs it. The exit status is 0 when all of it evaluates and says nothing,
1 when something does not, warns or fails an assertion, and 2 when what is given is not what it should be.
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
            raise LabError(f"--jobs {options.jobs}: at least one evaluation has to run")
        fleet = _directory("--fleet", str(options.fleet))
        sources = _sources(options.inputs, fleet)
        findings = _all(fleet, sources, options.jobs)
    except LabError as error:
        print(f"fleet-real: {error}", file=sys.stderr)
        return 2
    return 1 if findings else 0


def _directory(name: str, given: str, is_flake: bool = True) -> Path:
    path = Path(given).expanduser().resolve()
    if not path.is_dir():
        raise LabError(f"{name}={given}: no such directory")
    if is_flake and not (path / "flake.nix").is_file():
        raise LabError(f"{name}={given}: it has no flake.nix")
    return path


def _sources(given: Sequence[str], fleet: Path) -> dict[str, Path]:
    """The directories by the names that the fleet's flake has for its inputs."""
    found: dict[str, Path] = {}
    inputs = _declared(fleet)
    declared = {name.upper().replace("-", "_"): name for name in inputs}
    for word in given:
        variable, equals, path = word.partition("=")
        if not equals or not path:
            raise LabError(f"{word}: say NAME=DIRECTORY, as NIXPKGS=/path/to/nixpkgs")
        if variable not in declared:
            raise LabError(f"{word}: {fleet}/flake.nix has no such input; it has {', '.join(sorted(declared))}")
        if declared[variable] in found:
            raise LabError(f"{word}: {variable} is given twice")
        found[declared[variable]] = _directory(variable, path, inputs[declared[variable]])
    if "nixpkgs" not in found:
        others = " ".join(f"[{variable}=/path]" for variable in sorted(declared) if declared[variable] != "nixpkgs")
        raise LabError(f"say where a nixpkgs lies, nothing is fetched: NIXPKGS=/path {others}".rstrip())
    if not (found["nixpkgs"] / "nixos" / "modules" / "module-list.nix").is_file():
        raise LabError(f"NIXPKGS={found['nixpkgs']}: not a nixpkgs: it has no nixos/modules/module-list.nix")
    return found


def _declared(fleet: Path) -> dict[str, bool]:
    """The inputs that follow no other, by name, and whether each is a flake; the flake's text alone is evaluated."""
    expression = """flake: let all = flake.inputs or {}; in builtins.mapAttrs (_: input: input.flake or true)
      (removeAttrs all (builtins.filter (name: all.${name} ? follows) (builtins.attrNames all)))"""
    argv = ["nix", "eval", "--json", "--extra-experimental-features", "nix-command", "--file", str(fleet / "flake.nix")]
    done = subprocess.run([*argv, "--apply", expression], capture_output=True, text=True)
    if done.returncode:
        raise LabError(f"{fleet}/flake.nix: {done.stderr.strip().splitlines()[-1].strip()}")
    return dict(json.loads(done.stdout))


def _all(fleet: Path, sources: Mapping[str, Path], jobs: int) -> int:
    """Evaluate and print everything; how many things are wrong."""
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
    found = []
    with ThreadPoolExecutor(jobs) as pool:
        for one in pool.map(lambda each: ask(each[0], each[1], fleet, sources), targets):
            found.append(one)
            _print(one)
    found.append(_checked(fleet, sources))
    _print(found[-1])
    wrong = sum(one.found for one in found)
    warnings, failed = sum(len(one.warnings) for one in found), sum(len(one.failed) for one in found)
    errors = sum(bool(one.error) for one in found)
    cpu, memory = sum(one.took.cpu for one in found), max(one.took.memory for one in found)
    print(
        f"\n{errors} errors, {failed} failing assertions, {warnings} warnings; CPU {cpu:.0f} s, at most {memory:.1f} GB"
    )
    return wrong


def _checked(fleet: Path, sources: Mapping[str, Path]) -> Evaluation:
    """All of the flake at once, where it needs nothing that is not here."""
    missing = sorted(set(_declared(fleet)) - set(sources))
    if missing:
        return Evaluation("flake check", "", error=f"not run, without {', '.join(missing)} it would have to fetch")
    return flake_check(fleet, sources)


def _print(one: Evaluation) -> None:
    ended = "does not evaluate" if one.error else "fails" if one.failed else "warns" if one.warnings else "ok"
    disks = ", disko script" if one.answer and one.answer.get("disko") else ""
    label = f"{one.kind} {one.name}{disks}".strip()
    print(
        f"{label:34} {ended:18} {one.took.wall:6.1f} s  CPU {one.took.cpu:5.1f} s  {one.took.memory:4.1f} GB",
        flush=True,
    )
    for line in _said(one):
        print(f"    {line}", flush=True)


def _said(one: Evaluation) -> Iterator[str]:
    for title, texts in (
        ("error", [one.error] if one.error else []),
        ("assertion", one.failed),
        ("warning", one.warnings),
    ):
        for text in texts:
            first, *more = text.strip().splitlines() or [""]
            yield f"{title}: {first}"
            yield from (f"  {line}" for line in more)


def _revision(path: Path) -> str:
    """The commit that the directory is at, with -dirty where it has changes; only git itself knows."""
    git = ["git", "-C", str(path), "-c", "core.fsmonitor=false"]
    for arguments in (["ls-files", "--error-unmatch", "flake.nix"], ["describe", *_AS_A_HASH]):
        done = subprocess.run([*git, *arguments], capture_output=True, text=True)
        if done.returncode:
            return "of an unknown revision"
    return done.stdout.strip()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
