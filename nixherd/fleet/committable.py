"""Whether a change of the fleet's files could be committed: asked before it is made, and when it is only planned."""

import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from nixherd.base.errors import FleetError
from nixherd.fleet.git import Repository


def require_committable(root: Path, paths: Sequence[str], *, commit: bool) -> None:
    """FleetError when one of the files has changes that nobody committed, or git could not commit them."""
    new = [path for path in paths if not os.path.lexists(root / path)]
    require_committable_in(root, Repository.around(root), paths, new, commit=commit)


def require_committable_in(
    root: Path, repository: Repository | None, paths: Sequence[str], new: Sequence[str], *, commit: bool
) -> None:
    """The same where the repository is known, None for none, and which of the files are `new`."""
    if not paths:  # git would take none for all
        return
    if repository is None:
        if commit:
            remedy = "`git init` one, or say --no-commit (data commit=False)"
            raise FleetError(f"{root}: is not in a git repository; {remedy}")
        return
    if dirty := repository.changed(paths):
        more = f" (and {len(dirty) - 1} more)" if len(dirty) > 1 else ""
        what = f"has changes that are not committed{more}; commit or undo them first"
        raise FleetError(f"{root / dirty[0]}: {what}")
    if new and (ignored := repository.ignored(new)):
        raise FleetError(f"{root / ignored[0]}: git ignores it; it cannot be committed, see .gitignore")
    if commit:
        if unseen := repository.overlooked(paths):
            how = "git update-index --no-assume-unchanged --no-skip-worktree"
            what = f"git was told not to look at it, and would not commit it; `{how} {shlex.quote(unseen[0])}`"
            raise FleetError(f"{root / unseen[0]}: {what}")
        repository.require_able()
