"""`nixherd check`, `fmt`, `lint` and `hooks`: the quality gate."""

import json
import os
import secrets
import shlex
import shutil
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click

from nixherd.base.errors import Exit, FleetError, Usage
from nixherd.base.files import expanded, write_whole
from nixherd.base.terminal import put, say, visible
from nixherd.cli.front import Front, pass_front
from nixherd.cli.help import Group
from nixherd.cli.output import show_json, wants_json
from nixherd.cli.parameters import SECONDS, json_option
from nixherd.fleet.git import Repository
from nixherd.gate import programs
from nixherd.gate.files import Place, of_fleet
from nixherd.gate.programs import MENDERS, mended, put_in_place
from nixherd.gate.results import Result, Status, annotations, junit_xml, passed, sarif_log
from nixherd.gate.tools import QUICK, TOOLS, Scope, require_known, run_all
from nixherd.trust.findings import look_at_secrets

_NAMES = ", ".join(TOOLS)
_SAY = partial(say, err=True)
_without = click.option("--without", multiple=True, metavar="TOOL", help="Leave this tool out; may be repeated.")


@click.command(epilog=f"The tools: {_NAMES}.")
@_without
@click.option("--only", multiple=True, metavar="TOOL", help="Run this tool alone; may be repeated.")
@click.option("--changed", "only_changed", is_flag=True, help="For a commit hook: quick tools, changed files.")
@click.option("--fix", is_flag=True, help="Let statix, deadnix and alejandra mend what they can, then check.")
@click.option("--junit", metavar="FILE", help="Write the results as JUnit's XML, too.")
@click.option("--sarif", metavar="FILE", help="Write the results as SARIF 2.1.0, too.")
@click.option("--deadline", type=SECONDS, help="For each tool; else 300, and 4 hours for nix flake check.")
@json_option
@pass_front
def check(
    front: Front, /, without: Sequence[str], only: Sequence[str], fix: bool, junit: str, sarif: str, **options: Any
) -> int:
    """Check the fleet's files with every tool, side by side, and build all configurations: the quality gate.

    Status 1 when anything is found, or when a tool is missing or cannot tell; in GitHub Actions with annotations.
    """
    require_known(without, "--without")
    require_known(only, "--only")
    with Scope(front.root, look_at_secrets, **options) as scope:
        if fix:
            names = [name for name in MENDERS if name not in without and (not only or name in only)]
            _fix(front, scope.place.nix, names, scope.limit(QUICK), "; `git add` it" if scope.only_changed else "")
        results = _show(front, scope, run_all(scope, without, only, _SAY))
        prefix = scope.repository.prefix if scope.repository else ""
    if junit:
        _write(junit, junit_xml(results))
    if sarif:
        _write(sarif, json.dumps(sarif_log(results, prefix), indent=2) + "\n")
    return int(Exit.DONE if passed(results) else Exit.FAILED)


def _write(file: str, text: str) -> None:
    """Write a report: a file is replaced as a whole, a pipe or device (/dev/stdout) is written to."""
    path = expanded(file).absolute()
    if path.exists() and not path.is_file():
        with path.open("w", encoding="utf-8") as stream:
            stream.write(text)
    else:
        write_whole(path.resolve(), text, 0o644)


def _show(front: Front, scope: Scope, coming: Iterator[Result]) -> list[Result]:
    """Show each result as it comes, or all of them as one document."""
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
        for line in annotations(results, prefix):
            say(line, err=as_json)
    if as_json:
        show_json(_document(front, results))
    return results


def _say(result: Result) -> None:
    text = result.reason or (f"{len(result.findings)} found" if result.findings else result.note)
    if result.status is Status.NOT_RUN:
        text = f"{TOOLS[result.tool].what} ({result.note})"
    say(f"{result.status:8} {result.tool:12} {text}{f'  {result.seconds:.1f} s' if result.seconds >= 0.1 else ''}")
    for finding in result.findings:
        say(f"  {finding}")


def _summary(results: Sequence[Result]) -> str:
    counts = {status: [each.tool for each in results if each.status is status] for status in Status}
    numbers = [f"{len(tools)} {status}" for status, tools in counts.items() if tools]
    bad = [f"{status}: {', '.join(tools)}" for status, tools in counts.items() if tools and not status.is_good]
    return ", ".join(numbers) + (f" ({'; '.join(bad)})" if bad else "")


def _document(front: Front, results: Sequence[Result]) -> dict[str, Any]:
    findings = [{"tool": result.tool, **finding.to_json()} for result in results for finding in result.findings]
    tools = [result.to_json() for result in results]
    return {"fleet": str(front.root), "ok": passed(results), "tools": tools, "findings": findings}


def _fix(front: Front, files: Sequence[str], names: Sequence[str], deadline: float, remark: str = "") -> None:
    """Mend what the tools can mend, and say which files that changed."""
    changes = mended(front.root, files, names, deadline)
    for line in changes.unmended:
        say(f"not fixed: {line}", err=True)
    for file in put_in_place(front.root, changes):
        front.wrote = True
        say(f"fixed {file}{remark}", err=True)


_LINTERS = ("deadnix", "statix")


@click.command()
@click.argument("paths", nargs=-1, metavar="[PATH…]")
@click.option("--check", "only_check", is_flag=True, help="Change nothing; status 1 when a file would be changed.")
@click.option("--diff", "as_diff", is_flag=True, help="Change nothing, show the changes; status 1 when there are any.")
@pass_front
def fmt(front: Front, paths: tuple[str, ...], only_check: bool, as_diff: bool) -> int:
    """Format Nix files with alejandra: those that are named, or all that git knows.

    A file is replaced as a whole, or not at all. One that does not parse stays as it is, and is reported.
    """
    place = Place(front.root, chosen(front.root, paths), front.root)
    findings = programs.alejandra(place, QUICK).findings
    wrong = [each for each in findings if each.rule != "format"]
    others = [each.file for each in findings if each.rule == "format" and each.file]
    if only_check:
        for finding in findings:
            say(finding)
        return int(Exit.FAILED if findings else Exit.DONE)
    for finding in wrong:
        say(finding, err=True)
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
@click.option("--fix", is_flag=True, help="Let the tools mend what they can, then lint.")
@_without
@json_option
@pass_front
def lint(front: Front, /, paths: tuple[str, ...], fix: bool, without: tuple[str, ...]) -> int:
    """Lint Nix files with deadnix and statix: those that are named, or all that git knows."""
    require_known(without, "--without")
    files = chosen(front.root, paths)
    with Scope(front.root, look_at_secrets, chosen=files) as scope:
        names = [name for name in _LINTERS if name not in without]
        if fix and names:
            _fix(front, files, names, QUICK)
        coming = run_all(scope, without, _LINTERS, _SAY)
        results = _show(front, scope, (each for each in coming if each.tool in _LINTERS))
    return int(Exit.DONE if passed(results) else Exit.FAILED)


def chosen(root: Path, paths: Sequence[str]) -> list[str]:
    """List the Nix files that the paths mean, below the fleet's directory; in a directory, all that git knows.

    Usage for a path that does not exist or lies elsewhere.
    """
    known = of_fleet(root, Repository.around(root)).nix
    files = [] if paths else known
    for path in paths:
        whole = expanded(path).absolute()
        if not os.path.lexists(whole):
            raise Usage(f"{path}: no such file or directory")
        below = os.path.relpath(whole.resolve(), root)
        if below.startswith(".."):
            raise Usage(f"{path}: lies outside of {root}; --fleet says which fleet is meant")
        if whole.is_dir():
            files += (file for file in known if below == "." or file.startswith(f"{below}/"))
        elif whole.is_symlink() or not below.endswith(".nix"):
            raise Usage(f"{path}: is not a Nix file; name .nix files or directories")
        else:
            files.append(below)
    if not files:
        raise Usage(f"{root}: git knows no Nix file there; `git add` it, or name it")
    return sorted(set(files))


_MARK = "# Written by `nixherd hooks install`"
_HOOK = """\
#!/bin/sh
{mark}: the quick part of the quality gate, on what is committed.
fleet=$(git rev-parse --show-toplevel)/{prefix}
[ -f "$fleet/hosts.nix" ] || [ -f "$fleet/nixherd.nix" ] || [ -f "$fleet/flake.nix" ] || exit 0
nixherd=$(command -v nixherd || echo {program})
exec "$nixherd" --fleet "$fleet" check --changed --table
"""


@click.group(cls=Group)
def hooks() -> None:
    """Install git hooks that call nixherd."""


@hooks.command()
@pass_front
def install(front: Front) -> None:
    """Have git run `nixherd check --changed` before each commit; a hook that is not ours is left alone."""
    repository = Repository.around(front.root)
    if repository is None:
        raise FleetError(f"{front.root}: is not in a git repository; `git init` it")
    directory = _directory(repository)
    if os.path.lexists(directory) and not directory.is_dir():
        raise FleetError(f"{directory}: is not a directory, so git runs no hooks; see `git config core.hooksPath`")
    scope = repository.write("config", "--show-scope", "--get", "core.hooksPath", answers=(0, 1)).stdout.split()
    if scope and scope[0] in ("global", "system"):
        what = f"holds the hooks of all repositories (core.hooksPath, {scope[0]} configuration)"
        remedy = "give this one its own (`git config core.hooksPath .git/hooks`)"
        raise FleetError(f"{directory}: {what}; {remedy}, or call `nixherd check --changed --table` there")
    path = directory / "pre-commit"
    program = shutil.which("nixherd") or str(Path(sys.argv[0]).absolute())  # where it is not on PATH
    prefix = repository.prefix.rstrip("/") or "."
    text = _HOOK.format(mark=_MARK, prefix=shlex.quote(prefix), program=shlex.quote(program))
    before = path.read_text(errors="replace") if os.path.lexists(path) and path.exists() else None
    if before is None and os.path.lexists(path):
        raise FleetError(f"{path}: is a link that leads nowhere; remove it, or mend it")
    if before == text and os.access(path, os.X_OK):
        say(f"{path}: is installed already")
        return
    if before is not None and _MARK not in before:
        line = "nixherd check --changed --table || exit 1"
        raise FleetError(f"{path}: is not a hook of ours, and stays as it is; add the line `{line}` to it")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path.resolve(), text, 0o755)
    front.wrote = True
    say(f"{path}: {'written' if before is None else 'replaced'}; `git commit --no-verify` passes over it once")


def _directory(repository: Repository) -> Path:
    """Give the directory of git's hooks; a relative core.hooksPath is below the work tree's top."""
    top = Repository.around(repository.top) or repository
    return top.directory / top.write("rev-parse", "--git-path", "hooks").stdout.removesuffix("\n")
