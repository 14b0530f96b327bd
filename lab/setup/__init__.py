"""Makes what the lab needs and keeps it in the cache: Debian packages, base root, Nix, template image.

Everything is built beside its place and renamed into it, and named after its recipe: a changed recipe makes a new one.
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
    """What set-up made: the base root, the template's raw image, where Nix and its nix.conf and where sops are."""

    base: Path
    template: Path
    nix: nix.Nix
    tools: Path


def prepare(cache_directory: Path, progress: Progress) -> Parts:
    """Build what is missing; a second call finds everything. Raises LabError."""
    packages.install_missing(progress)
    with Cache(cache_directory, progress) as cache:
        programs = tools.build(cache)
        root = base.build(cache, programs)
        return Parts(root, template.build(cache, root), nix.find(cache, root), programs)


def prepare_nix(cache_directory: Path, progress: Progress) -> tuple[nix.Nix, Path]:
    """Nix, and the directory of sops, for what runs outside the lab; without the base root when a good Nix is on PATH.

    Raises LabError.
    """
    program = shutil.which("nix")
    with Cache(cache_directory, progress) as cache:
        programs = tools.build(cache)
        if program and nix.new_enough(program):
            return nix.of_the_user(cache, Path(program)), programs
        packages.install_missing(progress)
        return nix.find(cache, base.build(cache, programs)), programs
