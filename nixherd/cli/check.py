"""`nixherd check`, `fmt`, `lint` and `hooks`: the quality gate."""

import json
import os
import secrets
import shlex
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from nixherd.cli.front import Front, pass_front
from nixherd.cli.output import show_json, wants_json
from nixherd.cli.parameters import Seconds, json_option
from nixherd.display import visible
from nixherd.errors import FleetError, FleetInvalid, Usage
from nixherd.exit_codes import Exit
from nixherd.files import expanded, write_whole
from nixherd.fleet.git import Repository
from nixherd.gate import formats, programs
from nixherd.gate.files import Place, of_fleet
from nixherd.gate.programs import MENDERS, mended, put_in_place
from nixherd.gate.results import Result, Status, passed
from nixherd.gate.tools import QUICK, TOOLS, Scope, require_known, run_all
from nixherd.terminal import put, say

_NAMES = ", ".join(TOOLS)


@click.command(epilog=f"The tools: {_NAMES}.")
@click.option("--without", multiple=True, metavar="TOOL", help="Leave this tool out, and say so; may be repeated.")
@click.option("--only", multiple=True, metavar="TOOL", help="Run this tool alone; may be repeated.")
@click.option("--changed", is_flag=True, help="For a commit hook: the quick tools, on files that git says are changed.")
@click.option("--fix", is_flag=True, help="Let statix, deadnix and alejandra mend what they can, then check.")
@click.option("--junit", "junit_file", metavar="FILE", help="Write the results as JUnit's XML, too.")
@click.option("--sarif", "sarif_file", metavar="FILE", help="Write the results as SARIF 2.1.0, too.")
@click.option(
    "--deadline",
    type=Seconds(),
    metavar="SECONDS",
    help="For each program that looks at files, else 300, and for nix flake check, else 4 hours.",
)
@json_option
@pass_front
def check(
    front: Front,
    /,
    without: tuple[str, ...],
    only: tuple[str, ...],
    changed: bool,
    fix: bool,
    junit_file: str | None,
    sarif_file: str | None,
    deadline: float | None,
) -> int:
    """The quality gate: everything that looks at the fleet's files, side by side, and all configurations built.

    Status 1 when anything is found, or when a tool is missing or cannot tell; in GitHub Actions with annotations.
    """
    require_known(without, "--without")
    require_known(only, "--only")
    require_fleet(front.root)
    with Scope(front.root, only_changed=changed, deadline=deadline) as scope:
        if fix:
            names = [name for name in MENDERS if name not in without and (not only or name in only)]
            front.wrote = _fix(scope, names)
        results = show(front, scope, run(scope, without, only))
        prefix = scope.repository.prefix if scope.repository else ""
    if junit_file:
        _write(junit_file, formats.junit(results))
    if sarif_file:
        _write(sarif_file, json.dumps(formats.sarif(results, prefix), indent=2) + "\n")
    return int(Exit.DONE if passed(results) else Exit.FAILED)


def _write(file: str, text: str) -> None:
    """A report: a file is replaced as a whole; what is none (/dev/stdout, a pipe) is written to, and stays."""
    path = expanded(file).absolute()
    if path.exists() and not path.is_file():
        with path.open("w", encoding="utf-8") as stream:
            stream.write(text)
    else:
        write_whole(path.resolve(), text, 0o644)


def require_fleet(root: Path) -> None:
    """FleetInvalid where there is no such directory."""
    if not root.is_dir():
        raise FleetInvalid([f"{root}: no such directory; FLEET names the directory of the fleet's flake"])


def run(scope: Scope, without: Sequence[str] = (), only: Sequence[str] = ()) -> Iterator[Result]:
    """The tools' results as they come; what is waited for is said, each time that it is something else."""
    said = ""

    def tell(line: str) -> None:
        nonlocal said
        if line != said:
            say(line, err=True)
        said = line

    yield from run_all(scope, without, only, tell)


def show(front: Front, scope: Scope, coming: Iterator[Result]) -> list[Result]:
    """Say each result once it is there, or all of them as one document."""
    in_actions = os.environ.get("GITHUB_ACTIONS") == "true"
    as_json = front.as_json is True if in_actions else wants_json(front.as_json)
    results = []
    mute = f"stop-commands::{secrets.token_hex(16)}" if in_actions and not as_json else ""
    if mute:  # what tools print is not a command
        say(f"::{mute}")
    for result in coming:
        results.append(result)
        if not as_json:
            _say(result)
    if not as_json:
        say(_summary(results))
    if mute:
        say(f"::{mute.rpartition(':')[2]}::")
    if in_actions:
        prefix = scope.repository.prefix if scope.repository else ""
        for line in formats.annotations(results, prefix):
            say(line, err=as_json)
    if as_json:
        show_json(_document(front, results))
    return results


def _say(result: Result) -> None:
    about = result.reason or (f"{len(result.findings)} found" if result.findings else result.note)
    if result.status is Status.NOT_RUN:
        about = f"{TOOLS[result.tool].what} ({result.note})"
    say(f"{result.status:8} {result.tool:12} {about}{f'  {result.seconds:.1f} s' if result.seconds >= 0.1 else ''}")
    for found in result.findings:
        say(f"  {found}")


def _summary(results: Sequence[Result]) -> str:
    counts = {status: [each.tool for each in results if each.status is status] for status in Status}
    said = [f"{len(tools)} {status}" for status, tools in counts.items() if tools]
    bad = [f"{status}: {', '.join(tools)}" for status, tools in counts.items() if tools and not status.is_good]
    return ", ".join(said) + (f" ({'; '.join(bad)})" if bad else "")


def _document(front: Front, results: Sequence[Result]) -> dict[str, Any]:
    findings = [{"tool": result.tool, **found.to_json()} for result in results for found in result.findings]
    tools = [result.to_json() for result in results]
    return {"fleet": str(front.root), "ok": passed(results), "tools": tools, "findings": findings}


def _fix(scope: Scope, names: Sequence[str]) -> bool:
    """Mend what can be mended, and say what was; whether anything was."""
    found = mended(scope.root, scope.place.nix, names, scope.limit(QUICK))
    for line in found.unmended:
        say(f"not fixed: {line}", err=True)
    files = put_in_place(scope.root, found)
    for file in files:
        say(f"fixed {file}{'; `git add` it' if scope.only_changed else ''}", err=True)
    return bool(files)


_LINTERS = ("deadnix", "statix")


@click.command()
@click.argument("paths", nargs=-1, metavar="[PATH…]")
@click.option("--check", "only_check", is_flag=True, help="Change nothing; status 1 when a file would be changed.")
@click.option("--diff", "as_diff", is_flag=True, help="Change nothing, show what would be; status 1 when there is any.")
@pass_front
def fmt(front: Front, paths: tuple[str, ...], only_check: bool, as_diff: bool) -> int:
    """Format Nix files with alejandra: those that are named, or all that git knows.

    A file is replaced as a whole, or not at all. One that does not parse stays as it is, and is said.
    """
    require_fleet(front.root)
    place = Place(front.root, chosen(front.root, paths), front.root)
    findings = programs.alejandra(place, QUICK).findings
    wrong = [each for each in findings if each.rule != "format"]
    others = [each.file for each in findings if each.rule == "format" and each.file]
    if only_check:
        for found in findings:
            say(found)
        return int(Exit.FAILED if findings else Exit.DONE)
    for found in wrong:
        say(found, err=True)
    changes = mended(front.root, others, ["alejandra"], QUICK)
    for line in changes.unmended:
        say(line, err=True)
    if as_diff:
        put(visible(changes.diff()), nl=False)
        return int(Exit.FAILED if findings else Exit.DONE)
    for file in put_in_place(front.root, changes):
        front.wrote = True
        say(f"formatted {file}")
    if set(changes.after) != set(others):
        wrong = [*wrong, *findings]
    if not findings:
        say(f"{len(place.nix)} files are formatted", err=True)
    return int(Exit.FAILED if wrong else Exit.DONE)


@click.command()
@click.argument("paths", nargs=-1, metavar="[PATH…]")
@click.option("--fix", is_flag=True, help="Let the tools mend what they can, then look.")
@click.option("--without", multiple=True, metavar="TOOL", help="Leave this tool out, and say so; may be repeated.")
@json_option
@pass_front
def lint(front: Front, /, paths: tuple[str, ...], fix: bool, without: tuple[str, ...]) -> int:
    """Look at Nix files with deadnix and statix: at those that are named, or all that git knows."""
    require_known(without, "--without")
    require_fleet(front.root)
    files = chosen(front.root, paths)
    with Scope(front.root, chosen=files) as scope:
        names = [name for name in _LINTERS if name not in without]
        if fix and names:
            found = mended(front.root, files, names, QUICK)
            for line in found.unmended:
                say(f"not fixed: {line}", err=True)
            for file in put_in_place(front.root, found):
                front.wrote = True
                say(f"fixed {file}", err=True)
        coming = (each for each in run(scope, without, _LINTERS) if each.tool in _LINTERS)
        results = show(front, scope, coming)
    return int(Exit.DONE if passed(results) else Exit.FAILED)


def chosen(root: Path, paths: Sequence[str]) -> list[str]:
    """The Nix files that somebody means, below the fleet's directory: of a directory all that git knows in it.

    Usage for a path that is not there or lies elsewhere.
    """
    known = of_fleet(root, Repository.around(root)).nix
    if not paths:
        return _some(root, known)
    found: list[str] = []
    for path in paths:
        whole = expanded(path).absolute()
        if not os.path.lexists(whole):
            raise Usage(f"{path}: there is no such file or directory")
        below = os.path.relpath(whole.resolve(), root)
        if below.startswith(".."):
            raise Usage(f"{path}: lies outside of {root}; --fleet says which fleet is meant")
        if whole.is_dir():
            found += (file for file in known if below == "." or file.startswith(f"{below}/"))
        elif whole.is_symlink() or not below.endswith(".nix"):
            raise Usage(f"{path}: is no Nix file")
        else:
            found.append(below)
    return _some(root, sorted(set(found)))


def _some(root: Path, files: list[str]) -> list[str]:
    if not files:
        raise Usage(f"{root}: there is no Nix file that git knows; `git add` it, or name it")
    return files


_MARK = "# Written by `nixherd hooks install`"
_HOOK = """\
#!/bin/sh
{mark}: the quick part of the quality gate, on what is committed.
fleet=$(git rev-parse --show-toplevel)/{prefix}
[ -f "$fleet/hosts.nix" ] || exit 0
nixherd=$(command -v nixherd || echo {program})
exec "$nixherd" --fleet "$fleet" check --changed --table
"""


@click.group()
def hooks() -> None:
    """git's hooks that call nixherd."""


@hooks.command()
@pass_front
def install(front: Front) -> None:
    """Have git run `nixherd check --changed` before each commit. A hook of somebody else's is left alone."""
    require_fleet(front.root)
    repository = Repository.around(front.root)
    if repository is None:
        raise FleetError(f"{front.root}: is in no git repository; `git init` it")
    directory = _directory(repository)
    if os.path.lexists(directory) and not directory.is_dir():
        raise FleetError(
            f"{directory}: is no directory, so git runs no hooks; `git config --show-origin core.hooksPath`"
        )
    if (scope := _scope(repository)) in ("global", "system"):
        raise FleetError(
            f"{directory}: holds the hooks of all repositories (core.hooksPath, {scope} configuration); give this one "
            "its own (`git config core.hooksPath .git/hooks`), or call `nixherd check --changed --table` there"
        )
    path = directory / "pre-commit"
    text = _HOOK.format(
        mark=_MARK, prefix=shlex.quote(repository.prefix.rstrip("/") or "."), program=shlex.quote(_program())
    )
    before = path.read_text(errors="replace") if os.path.lexists(path) and path.exists() else None
    if before is None and os.path.lexists(path):
        raise FleetError(f"{path}: is a link that leads nowhere; remove it, or mend it")
    if before == text and os.access(path, os.X_OK):
        say(f"{path}: is there already")
        return
    if before is not None and _MARK not in before:
        line = "nixherd check --changed --table || exit 1"
        raise FleetError(f"{path}: is a hook of somebody else's, and stays as it is; add the line `{line}` to it")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path.resolve(), text, 0o755)
    front.wrote = True
    say(f"{path}: {'written' if before is None else 'replaced'}; `git commit --no-verify` passes over it once")


def _directory(repository: Repository) -> Path:
    """Where git looks for the hooks; a relative core.hooksPath is below the work tree's top."""
    top = Repository.around(repository.top) or repository
    said = top.write("rev-parse", "--git-path", "hooks").stdout.removesuffix("\n")
    return top.directory / said


def _scope(repository: Repository) -> str | None:
    """Whose setting it is that hooks are elsewhere; None where nobody said so."""
    said = repository.write("config", "--show-scope", "--get", "core.hooksPath", answers=(0, 1)).stdout
    return said.split()[0] if said else None


def _program() -> str:
    """This very program, for where there is none on PATH."""
    return shutil.which("nixherd") or str(Path(sys.argv[0]).absolute())
