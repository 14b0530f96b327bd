"""`nixherd drift`: what differs, as a plan of what would mend it."""

import shlex
from collections.abc import Iterator, Sequence
from typing import Any

import click

from nixherd.cli.front import Front, pass_front
from nixherd.cli.metrics import status_document, status_options
from nixherd.cli.output import narrate, show_json, show_rows
from nixherd.cli.parameters import json_option
from nixherd.overview.mends import NotJudged, Plan, plan_of

FLEET = "(fleet)"
"""in the place of a host, what is of none"""
BY_HAND = "by hand"
_COLUMNS = ("host", "mend", "differences", "command")


@click.command()
@status_options
@json_option
@pass_front
def drift(front: Front, /, **options: Any) -> int:
    """Show what of hosts differs, as a plan: what mends it, in which order, and what only a person can mend.

    It ends as `nixherd status` does: 1 when anything differs, 4 when somebody does not answer, 5 when not all is known.
    """
    document = status_document(front, **options)
    plan, status = plan_of(document), int(document["exit"])
    if front.wants_json:
        show_json({"taken": document["taken"], **plan.to_json(), "exit": status})
        return status
    empty = "nothing differs" if not plan.not_judged else "nothing that could be judged differs"
    show_rows(rows_of(plan), _COLUMNS, as_json=False, empty=empty)
    narrate(unjudged_lines(plan.not_judged))
    return status


def rows_of(plan: Plan) -> list[dict[str, Any]]:
    """A row for each mend, and for each difference that a person has to mend."""
    rows = [
        {
            "host": each.host or FLEET,
            "mend": str(each.mend),
            "differences": "; ".join(wrong.what for wrong in each.differences),
            "command": shlex.join(each.command) if each.command else None,
        }
        for each in plan.mends
    ]
    for left in plan.by_hand:
        command = shlex.join(left.command) if left.command else None
        rows.append({"host": left.host or FLEET, "mend": BY_HAND, "differences": left.what, "command": command})
    return rows


def unjudged_lines(items: Sequence[NotJudged]) -> Iterator[str]:
    """A line for each cause for which something of a host is not known."""
    for each in items:
        sections = [section for section in each.sections if section not in ("reach", "hypervisor")]
        what = f"{', '.join(sections)} not known: " if sections else ""
        silent = "not reached: " if "reach" in each.sections else ""
        yield f"{each.host or 'the hypervisor'}: {silent}{what}{each.why}"
