"""`nixherd fmt` and `nixherd lint`."""

import os
from collections.abc import Sequence
from pathlib import Path

import click

from nixherd.cli.checking import require_fleet, run, show
from nixherd.cli.front import Front, pass_front
from nixherd.cli.parameters import json_option
from nixherd.display import visible
from nixherd.errors import Usage
from nixherd.exits import Exit
from nixherd.files import expanded
from nixherd.gate import alejandra
from nixherd.gate.files import Place, of_fleet
from nixherd.gate.mending import mended, put_in_place
from nixherd.gate.results import passed
from nixherd.gate.runner import require_known
from nixherd.gate.tools import QUICK, Scope
from nixherd.git import Repository
from nixherd.terminal import put, say

_CONTEXT = {"help_option_names": ["-h", "--help"]}
_LINTERS = ("deadnix", "statix")


@click.command(context_settings=_CONTEXT)
@click.argument("paths", nargs=-1, metavar="[PATH…]")
@click.option("--check", "only_check", is_flag=True, help="Change nothing; status 1 when a file would be changed.")
@click.option("--diff", "as_diff", is_flag=True, help="Change nothing, show what would be; status 1 when there is any.")
@pass_front
def fmt(front: Front, paths: tuple[str, ...], only_check: bool, as_diff: bool) -> int:
    """Format Nix files with alejandra: those that are named, or all that git knows.

    A file is replaced as a whole, or not at all. One that does not parse stays as it is, and is said.
    """
    require_fleet(front.root)
    place = Place(front.root, chosen(front.root, paths), front.root)
    findings = alejandra.check(place, QUICK).findings
    wrong = [each for each in findings if each.rule != "format"]
    others = [each.file for each in findings if each.rule == "format" and each.file]
    if only_check:
        for found in findings:
            say(found)
        return int(Exit.FAILED if findings else Exit.DONE)
    for found in wrong:
        say(found, err=True)
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


@click.command(context_settings=_CONTEXT)
@click.argument("paths", nargs=-1, metavar="[PATH…]")
@click.option("--fix", is_flag=True, help="Let the tools mend what they can, then look.")
@click.option("--without", multiple=True, metavar="TOOL", help="Leave this tool out, and say so; may be repeated.")
@json_option
@pass_front
def lint(front: Front, /, paths: tuple[str, ...], fix: bool, without: tuple[str, ...]) -> int:
    """Look at Nix files with deadnix and statix: at those that are named, or all that git knows."""
    require_known(without, "--without")
    require_fleet(front.root)
    files = chosen(front.root, paths)
    with Scope(front.root, front.token_path, chosen=files) as scope:
        names = [name for name in _LINTERS if name not in without]
        if fix and names:
            found = mended(front.root, files, names, QUICK)
            for line in found.unmended:
                say(f"not fixed: {line}", err=True)
            for file in put_in_place(front.root, found):
                front.wrote = True
                say(f"fixed {file}", err=True)
        coming = (each for each in run(scope, without, _LINTERS) if each.tool in _LINTERS)
        results = show(front, scope, coming)
    return int(Exit.DONE if passed(results) else Exit.FAILED)


def chosen(root: Path, paths: Sequence[str]) -> list[str]:
    """The Nix files that somebody means, below the fleet's directory: of a directory all that git knows in it.

    Usage for a path that is not there or lies elsewhere.
    """
    known = of_fleet(root, Repository.around(root)).nix
    if not paths:
        return _some(root, known)
    found: list[str] = []
    for path in paths:
        whole = expanded(path).absolute()
        if not os.path.lexists(whole):
            raise Usage(f"{path}: there is no such file or directory")
        below = os.path.relpath(whole.resolve(), root)
        if below.startswith(".."):
            raise Usage(f"{path}: lies outside of {root}; --fleet says which fleet is meant")
        if whole.is_dir():
            found += (file for file in known if below == "." or file.startswith(f"{below}/"))
        elif whole.is_symlink() or not below.endswith(".nix"):
            raise Usage(f"{path}: is no Nix file")
        else:
            found.append(below)
    return _some(root, sorted(set(found)))


def _some(root: Path, files: list[str]) -> list[str]:
    if not files:
        raise Usage(f"{root}: there is no Nix file that git knows; `git add` it, or name it")
    return files
