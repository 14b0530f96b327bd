"""`nixherd hooks`: the gate before each commit."""

import os
import shlex
import shutil
import sys
from pathlib import Path

import click

from nixherd.cli.checking import require_fleet
from nixherd.cli.front import Front, pass_front
from nixherd.errors import FleetError
from nixherd.files import write_whole
from nixherd.fleet.git import Repository
from nixherd.terminal import say

_MARK = "# Written by `nixherd hooks install`"
_HOOK = """\
#!/bin/sh
{mark}: the quick part of the quality gate, on what is committed.
fleet=$(git rev-parse --show-toplevel)/{prefix}
[ -f "$fleet/hosts.nix" ] || exit 0
nixherd=$(command -v nixherd || echo {program})
exec "$nixherd" --fleet "$fleet" check --changed --table
"""


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
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
