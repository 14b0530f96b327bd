"""`nixherd lock`: update the fleet's inputs through the gate."""

from pathlib import Path
from typing import Any

import click

from nixherd.base.errors import Exit, worst
from nixherd.base.files import expanded
from nixherd.base.terminal import say
from nixherd.cli.front import Front, pass_front
from nixherd.cli.help import Group
from nixherd.cli.output import narrate
from nixherd.cli.parameters import SECONDS, json_option
from nixherd.deploy import commit_policy as commits_gate
from nixherd.deploy.commit_policy import Gate
from nixherd.fleet.load import load_fleet
from nixherd.fleet.models import HOSTS, NIXHERD
from nixherd.fleet.place import operators_data
from nixherd.gate.lock.combine import TreeGate, markdown_of
from nixherd.gate.lock.run import BRANCH, Ended, Wanted, update


@click.group(cls=Group)
def lock() -> None:
    """Bring the fleet's inputs up to date."""


@lock.command("update")
@click.argument("only", nargs=-1, metavar="[INPUT|GROUP]...")
@click.option("--group", "groups", multiple=True, metavar="NAME=INPUT,INPUT", help="Inputs that move together, or not.")
@click.option("--branch", default=BRANCH, metavar="NAME", help="The branch that the update is on.")
@click.option("--base", metavar="NAME", help="The branch that it starts from; else the one that is checked out.")
@click.option("--merge-into", metavar="NAME", help="Start from this branch, and move it to what passed the gate.")
@click.option("--push", is_flag=True, help="Start from the remote's branch, and push what passed the gate.")
@click.option("--remote", metavar="NAME", help="Else the one of the branch that it starts from, else origin.")
@click.option("--gate", metavar="COMMAND", help="What says whether a tree may be merged; else `nixherd check`.")
@click.option("--gate-deadline", type=SECONDS, default=14400, help="For each answer of the gate.")
@click.option("--deadline", type=SECONDS, help="After it the gate is asked nothing more; what passed goes on.")
@click.option("--tries", type=click.IntRange(1, 50), default=5, help="How often to begin anew.")
@click.option("--summary", type=click.Path(dir_okay=False), metavar="FILE", help="Write what moved there, as Markdown.")
@json_option
@pass_front
def update_command(front: Front, /, gate: str | None, gate_deadline: float, summary: str | None, **options: Any) -> int:
    """Update flake.lock on a branch of its own: all inputs, or those named, each one a group by itself.

    Only a tree that passed the gate is merged or pushed. If all updates together do not pass, the gate judges one group
    after the other: a group that breaks something is left behind, and named with the gate's reason; the others are
    published. COMMAND is run by sh in the fleet's directory of the tree that it judges. If others push meanwhile, all
    of it is repeated on that.

    Status 0: all updates were published, or there were none. 1: something was left behind. 5: an input could not be
    looked up, or the gate gave no answer. In both cases the rest was published.
    """
    if summary and not expanded(summary).is_fifo():
        expanded(summary).open("a").close()  # fails now rather than after the update
    tree_gate = TreeGate(gate, gate_deadline)
    with front.recording() as recording:
        recording.begin()
        ended = update(front.root, Wanted(**options), tree_gate, _must_be_signed, lambda line: say(line, err=True))
        front.wrote = recording.changed = ended.at is not None
    outcome = ended.outcome
    if summary:
        with expanded(summary).open("w", encoding="utf-8") as file:
            file.write(markdown_of(outcome, _ended(ended)))
    moves = (f"{'  ' if len(move.path) > 1 else ''}{move}" for move in outcome.moves)
    front.show(_document(ended), [*moves, _ended(ended)])
    narrate(f"left behind: {left.group}: {left.reasons[0] if left.reasons else 'unknown'}" for left in outcome.left)
    narrate(f"unknown, not updated: {input}: {why}" for input, why in outcome.unknown)
    statuses = {Exit.FAILED: outcome.left, Exit.UNKNOWN: outcome.unknown}
    return int(worst([status for status, reasons in statuses.items() if reasons]))


def _must_be_signed(fleet: Path) -> bool:
    """Whether the fleet or group data require signed commits of the fleet in this directory."""
    has_entries = any((fleet / name).exists() for name in (HOSTS, NIXHERD))
    by_hosts = has_entries and commits_gate.required_by_hosts(load_fleet(fleet))
    return Gate.of(fleet, {}, operators_data(fleet), by_hosts=by_hosts, notes=False) is not None


def _ended(ended: Ended) -> str:
    if ended.outcome.commit is None:
        return "nothing that may go has moved" if ended.outcome.left or ended.outcome.unknown else "nothing moved"
    return f"{ended.at}: {ended.outcome.commit}"


def _document(ended: Ended) -> dict[str, Any]:
    outcome = ended.outcome
    return {
        "base": {"branch": ended.base, "commit": outcome.base},
        "commit": outcome.commit,
        "at": ended.at,
        "moved": [move.to_json() for move in outcome.moves],
        "left_behind": [
            {"group": left.group.name, "inputs": list(left.group.inputs), "reasons": list(left.reasons)}
            for left in outcome.left
        ],
        "unknown": dict(outcome.unknown),
    }
