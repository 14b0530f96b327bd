"""The programs of the quality gate, for tests: alejandra and deadnix, which are built with cargo.

crates.io has alejandra's library but not its command line: `lab/gate/alejandra` is a small one. statix is in no
registry; tests that need it use a stand-in.
"""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from lab.errors import LabError
from lab.setup.cache import Cache, call, stamp

FRONT = Path(__file__).resolve().parent.parent / "gate" / "alejandra"
DEADNIX = ("deadnix", "1.3.1")


class CargoMissing(LabError):
    """Rust is not installed."""


def build(cache_directory: Path) -> Path:
    """Return the directory with `alejandra` and `deadnix`. Raises CargoMissing, LabError."""
    with Cache(cache_directory, print) as cache:
        recipe = stamp([FRONT / "src", FRONT / "Cargo.toml", FRONT / "Cargo.lock", *DEADNIX])
        return cache.make(f"gate-{recipe}", "building alejandra and deadnix (2 minutes)", _build) / "bin"


def _build(path: Path) -> None:
    home = os.environ.get("CARGO_HOME") or str(Path.home() / ".cargo")
    cargo = shutil.which("cargo") or shutil.which(f"{home}/bin/cargo")
    if not cargo:
        raise CargoMissing(
            "the gate's tools are built with cargo: install it (apt-get install cargo), or put it on PATH"
        )
    target = path.with_name("target")
    for words in (["--path", FRONT], [DEADNIX[0], "--version", DEADNIX[1]]):
        _install(cargo, path, target, words)
    for left in (".crates.toml", ".crates2.json"):
        (path / left).unlink(missing_ok=True)


def _install(cargo: str, path: Path, target: Path, words: Sequence[object]) -> None:
    settings = [f"CARGO_TARGET_DIR={target}", "CARGO_PROFILE_RELEASE_OPT_LEVEL=1", "CARGO_TERM_COLOR=never"]
    call(["env", *settings, cargo, "install", "--quiet", "--locked", "--root", path, *words])
