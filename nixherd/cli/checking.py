"""`nixherd check`."""

from collections.abc import Iterator, Sequence

import click

from nixherd import lockout, sources
from nixherd.cli.front import Front, pass_front
from nixherd.cli.output import show_json, wants_json
from nixherd.cli.parameters import json_option
from nixherd.errors import FleetError, FleetInvalid
from nixherd.evaluation import evaluate
from nixherd.exits import Exit
from nixherd.files import expanded
from nixherd.findings import Finding, Severity
from nixherd.fleet import load_fleet
from nixherd.session import Session
from nixherd.terminal import say

_CONTEXT = {"help_option_names": ["-h", "--help"]}


@click.command(context_settings=_CONTEXT)
@click.option(
    "--closures",
    is_flag=True,
    help="Evaluate every host, too, and name those whose closure holds the fleet's own tree or commit, and those that "
    "nobody could become root on once they are installed.",
)
@json_option
@pass_front
def check(front: Front, /, closures: bool) -> int:
    """Whether the fleet's files are sound: every error and warning, with what to do. Status 1 when there is any."""
    findings = [*_findings(front), *(_closures(front) if closures else ())]
    if wants_json(front.as_json):
        rows = [each.to_json() if isinstance(each, Finding) else _error(each) for each in findings]
        show_json({"fleet": str(front.root), "ok": not findings, "findings": rows})
    else:
        for each in findings:
            say(each)
        if not findings:
            say("nothing found", err=True)
    return int(Exit.FAILED if findings else Exit.DONE)


def _findings(front: Front) -> Sequence[str]:
    try:
        return load_fleet(front.root).warnings
    except FleetInvalid as error:
        return error.findings


def _closures(front: Front) -> Iterator[str]:
    """What makes every commit another system of a host, what locks everybody out, and why it cannot be told of one."""
    try:
        session = Session(load_fleet(front.root), expanded(front.token_file))
    except FleetInvalid:  # which is told already
        return
    hosts = tuple(sorted(session.fleet.hosts))
    try:
        for host_id in hosts:
            try:
                yield from lockout.findings(session.fleet, {host_id: evaluate(session, hosts, host_id)})
                yield from sources.find(session, hosts, host_id)
            except FleetError as error:
                yield f"{host_id}: {str(error).removeprefix(f'{host_id}: ')}"
    finally:
        session.close()


def _error(line: str) -> dict[str, str | None]:
    """Of files that could not be evaluated, which has no attribute."""
    what, _, remedy = line.rpartition("; ") if "; " in line else (line, "", "")
    return {"severity": str(Severity.ERROR), "file": None, "attribute": None, "what": what, "remedy": remedy}
