"""`nixherd check`."""

from collections.abc import Sequence

import click

from nixherd.cli.front import Front, pass_front
from nixherd.cli.output import show_json, wants_json
from nixherd.cli.parameters import json_option
from nixherd.errors import FleetInvalid
from nixherd.exits import Exit
from nixherd.findings import Finding, Severity
from nixherd.fleet import load_fleet
from nixherd.terminal import say

_CONTEXT = {"help_option_names": ["-h", "--help"]}


@click.command(context_settings=_CONTEXT)
@json_option
@pass_front
def check(front: Front) -> int:
    """Whether the fleet's files are sound: every error and warning, with what to do. Status 1 when there is any."""
    findings = _findings(front)
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


def _error(line: str) -> dict[str, str | None]:
    """Of files that could not be evaluated, which has no attribute."""
    what, _, remedy = line.rpartition("; ") if "; " in line else (line, "", "")
    return {"severity": str(Severity.ERROR), "file": None, "attribute": None, "what": what, "remedy": remedy}
