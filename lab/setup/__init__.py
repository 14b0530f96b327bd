"""Builds the lab's parts and keeps them in the cache: Debian packages, base root, Nix, template image.

Everything is built in a temporary place and renamed, under a name derived from its recipe: a changed recipe makes a new
part.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lab.setup import base, nix, packages, template, tools
from lab.setup.cache import Cache

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Parts:
    """The results of set-up: base root, template's raw image, and the places of Nix, its nix.conf and sops."""

    base: Path
    template: Path
    nix: nix.Nix
    tools: Path


def prepare(cache_directory: Path, progress: Progress) -> Parts:
    """Build what is missing; a second call reuses everything. Raises LabError."""
    packages.install_missing(progress)
    with Cache(cache_directory, progress) as cache:
        programs = tools.build(cache)
        root = base.build(cache, programs)
        return Parts(root, template.build(cache, root), nix.find(cache, root), programs)


def prepare_nix(cache_directory: Path, progress: Progress) -> tuple[nix.Nix, Path]:
    """Return Nix and the directory of sops for use outside the lab; without the base root if PATH has a suitable Nix.

    Raises LabError.
    """
    program = shutil.which("nix")
    with Cache(cache_directory, progress) as cache:
        programs = tools.build(cache)
        if program and nix.new_enough(program):
            return nix.of_the_user(cache, Path(program)), programs
        packages.install_missing(progress)
        return nix.find(cache, base.build(cache, programs)), programs
