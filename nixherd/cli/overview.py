"""`nixherd overview`: docs/machines.md, from the fleet's files and from what was seen of its machines."""

from typing import Any

import click

from nixherd.base.names import path_below
from nixherd.cli.front import Front, pass_front
from nixherd.cli.metrics import status_choices, status_document
from nixherd.cli.output import narrate, progress
from nixherd.cli.parameters import commit_option, dry_run_option, json_option, message_option, standing
from nixherd.fleet import tree
from nixherd.fleet.changeset import Done, changing
from nixherd.overview.machines_md import machines_md


@click.command()
@status_choices
@standing("--docs-file", "docs_file", "docs/machines.md", "The file", metavar="FILE")
@standing("--docs-template", "docs_template", None, "A template of the first part", metavar="FILE")
@commit_option
@message_option
@dry_run_option
@json_option
@pass_front
def overview(
    front: Front, /, docs_file: str, docs_template: str | None, commit: bool, message: str | None, **options: Any
) -> None:
    """Write docs/machines.md: what the fleet's files say of hosts and guests, and what runs where; one commit.

    Each part is between two markers, and the text around them stays. Where nothing changed, nothing is written.
    """
    path = path_below("--docs-file", docs_file)
    template = path_below("--docs-template", docs_template) if docs_template else None
    document = status_document(front, (), **options)
    step = f"write {path}"
    if front.dry_run:
        old = tree.read(front.root, path)
        is_new = machines_md(front.fleet, document, old, path, template) != old
        _show(front, path, step if is_new else None, None)
        return
    recording = front.recording()
    with recording, changing(front.root, recording.begin) as changeset, progress("overview") as tell:
        front.wrote = changeset.resume(tell) is not None
        old = tree.read(front.root, path)
        content = machines_md(front.fleet, document, old, path, template)
        if content == old:
            _show(front, path, None, None)
            return
        changeset.require_committable([path], commit=commit)
        changeset.stage(path, content)
        done = changeset.publish({path: old}, message or f"docs: {path}, as seen", commit=commit, say=tell)
        front.wrote = True
    _show(front, path, step, done)


def _show(front: Front, path: str, step: str | None, done: Done | None) -> None:
    document: dict[str, Any] = {"steps": [step] if step else [], "files": [path] if step else []}
    document |= {"changed": front.wrote, "commit": done.commit if done else None, "notes": done.notes if done else ()}
    lines = [f"{'would ' if front.dry_run else ''}{step}"] if step else [f"{path}: says that already"]
    lines += [f"commit {done.commit}: 1 file"] if done and done.commit else []
    front.show(document, lines)
    if done is not None and not front.wants_json:
        narrate([*done.notes, *([] if done.commit else [f"{path} is not committed"])])
