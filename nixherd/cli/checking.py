"""`nixherd check`: the quality gate."""

import json
import os
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from nixherd.cli.front import Front, pass_front
from nixherd.cli.output import show_json, wants_json
from nixherd.cli.parameters import Seconds, json_option
from nixherd.errors import FleetInvalid
from nixherd.exits import Exit
from nixherd.files import expanded, write_whole
from nixherd.gate import annotations, junit, sarif
from nixherd.gate.mending import MENDERS, mended, put_in_place
from nixherd.gate.results import Result, Status, passed
from nixherd.gate.runner import require_known, run_all
from nixherd.gate.tools import QUICK, TOOLS, Scope
from nixherd.terminal import say

_CONTEXT = {"help_option_names": ["-h", "--help"]}
_NAMES = ", ".join(TOOLS)


@click.command(context_settings=_CONTEXT, epilog=f"The tools: {_NAMES}.")
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
    with Scope(front.root, front.token_path, only_changed=changed, deadline=deadline) as scope:
        if fix:
            names = [name for name in MENDERS if name not in without and (not only or name in only)]
            front.wrote = _fix(scope, names)
        results = show(front, scope, run(scope, without, only))
        prefix = scope.repository.prefix if scope.repository else ""
    if junit_file:
        _write(junit_file, junit.document(results))
    if sarif_file:
        _write(sarif_file, json.dumps(sarif.document(results, prefix), indent=2) + "\n")
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
    if mute:  # what tools say is no command
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
        for line in annotations.lines(results, prefix):
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
