"""Nix for the controller: the user's own when it is new enough, else the base root's, made to run outside it."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lab.setup.base import NIX_CONF
from lab.setup.cache import Cache, call, stamp

OLDEST = (2, 18)
ALIASES = [
    "nix-build",
    "nix-store",
    "nix-env",
    "nix-instantiate",
    "nix-copy-closure",
    "nix-collect-garbage",
    "nix-daemon",
]


@dataclass(frozen=True)
class Nix:
    """`bin` holds the programs, `conf` nix.conf; `own` says that it is the lab's and /nix is too."""

    bin: Path
    conf: Path
    of_the_lab: bool


def new_enough(program: str) -> bool:
    """Whether flakes, `--print-out-paths` and `drv^*` are there (2.8, Debian 12's, has none of it)."""
    try:
        text = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=20).stdout
    except (OSError, subprocess.TimeoutExpired):
        return False
    found = re.search(r"(\d+)\.(\d+)", text)
    return found is not None and (int(found[1]), int(found[2])) >= OLDEST


def find(cache: Cache, base: Path) -> Nix:
    """The user's Nix or the lab's."""
    program = shutil.which("nix")
    if program and cache.directory not in Path(program).parents and new_enough(program):
        return of_the_user(cache, Path(program))
    made = cache.make(
        f"nix-{stamp([base.name, Path(__file__)])}", "making Nix from the base", lambda p: _extract(base, p)
    )
    return Nix(made / "bin", made / "etc", of_the_lab=True)


def of_the_user(cache: Cache, program: Path) -> Nix:
    """Their program, with a nix.conf that reaches no network."""
    conf = cache.make(f"nix-conf-{stamp([NIX_CONF])}", "writing nix.conf", _write_conf)
    return Nix(program.parent, conf, of_the_lab=False)


def _write_conf(directory: Path) -> None:
    directory.mkdir(parents=True)
    (directory / "nix.conf").write_text(NIX_CONF)


def _extract(base: Path, made: Path) -> None:
    """Copy the program and every library it names, and let each find the others beside it."""
    for part in ("bin", "lib"):
        (made / part).mkdir(parents=True)
    _write_conf(made / "etc")
    final = made.parent.parent / made.name  # where `make` moves it: the interpreter's path is absolute
    loader = None
    for library in _libraries(base, "/usr/bin/nix"):
        target = made / "lib" / Path(library).name
        shutil.copy(base / library.lstrip("/"), target)
        if target.name.startswith("ld-"):
            loader = target
        else:
            call(["patchelf", "--set-rpath", "$ORIGIN", target])
    assert loader is not None, "ldd names the loader of a dynamic program"
    program = made / "bin" / "nix"
    shutil.copy(base / "usr/bin/nix", program)
    call(["patchelf", "--set-interpreter", final / "lib" / loader.name, "--set-rpath", "$ORIGIN/../lib", program])
    for alias in ALIASES:
        os.symlink("nix", made / "bin" / alias)


def _libraries(base: Path, program: str) -> Iterator[str]:
    """Absolute paths below `base` of what `program` loads, the loader among them."""
    for line in call(["chroot", base, "ldd", program]).splitlines():
        found = re.search(r"(/\S+) \(0x", line)
        if found:
            yield found[1]
