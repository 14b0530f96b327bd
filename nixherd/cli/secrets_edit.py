"""`nixherd secrets edit`: one secret file in an editor, and one commit of it."""

import sys
from typing import Any

from nixherd.base.errors import FAILURES
from nixherd.base.files import write_whole
from nixherd.base.terminal import is_terminal, worded
from nixherd.cli.front import Front
from nixherd.cli.output import narrate, progress
from nixherd.fleet.changeset import Changeset, Done, changing
from nixherd.trust.secrets.editing import Editing, chosen
from nixherd.trust.secrets.sops import nobody, operator
from nixherd.trust.secrets.store import Secrets


def edit(front: Front, secrets: Secrets, file: str, *, identity: str | None, message: str | None, commit: bool) -> None:
    """Edit a file, or make it, and commit that. FleetError, Usage among them, when nothing comes of it."""
    path = chosen(secrets, file)
    if front.dry_run:
        editing = Editing.of(secrets, path)
        people = secrets.people(front.fleet)
        names = ", ".join(people.name(key) for key in editing.rule.recipients)
        _show(front, editing, None, [f"would {editing.step}, {editing.rule.label}: {names}"])
        return
    with front.recording() as recording, changing(front.root, recording.begin) as changeset:
        with progress("secrets") as tell:
            front.wrote = changeset.resume(tell) is not None
        editing = Editing.of(secrets, path)
        changeset.require_committable([path], commit=commit)
        if editing.encrypted:
            sops = operator(front.run, identity).sops(editing.encrypted.recipients)
        else:
            sops = nobody(front.run, editing.rule.recipients)
        content = editing.edited(front.run, sops, changeset.staged, is_terminal=is_terminal(sys.stdin))
        if content is None:
            _show(front, editing, None, [f"{path}: was not changed"])
            return
        done = _publish(front, changeset, editing, content, message or f"secrets: {editing.step}", commit=commit)
    front.wrote = True
    lines = [editing.step, *([f"commit {done.commit}: 1 file"] if done.commit else [])]
    _show(front, editing, done, lines)


def _publish(
    front: Front, changeset: Changeset, editing: Editing, content: bytes, message: str, *, commit: bool
) -> Done:
    changeset.stage(editing.path, content)
    try:
        with progress("secrets") as tell:
            return changeset.publish({editing.path: editing.before}, message, commit=commit, say=tell)
    except FAILURES as error:
        # somebody's work is in it
        kept = front.run.state_directory / "edited" / editing.path.replace("/", "_")
        write_whole(kept, content.decode())
        failure = worded(error, editing.path)
        failure.args = (f"{failure}; what was written is kept, encrypted, in {kept}", *failure.args[1:])
        raise failure from error


def _show(front: Front, editing: Editing, done: Done | None, lines: list[str]) -> None:
    is_changed = done is not None
    document: dict[str, Any] = {"steps": [editing.step] if is_changed or front.dry_run else []}
    document |= {"files": [editing.path] if is_changed or front.dry_run else []}
    document |= {"changed": front.wrote, "commit": done.commit if done else None, "notes": done.notes if done else ()}
    front.show(document, lines)
    if done is not None and not front.wants_json:
        narrate([*done.notes, *([] if done.commit else [f"{editing.path} is not committed"])])
