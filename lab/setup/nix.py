"""Nix for the controller: the user's if it is new enough, otherwise the base root's, adapted to run outside it."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lab.setup import elf
from lab.setup.base import NIX_CONF
from lab.setup.cache import Cache, call, stamp
from lab.setup.elf import bind_lazily

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
    """`bin` holds the programs, `conf` nix.conf; `of_the_lab`: whether the lab built it, with a /nix of its own."""

    bin: Path
    conf: Path
    of_the_lab: bool


def new_enough(program: str) -> bool:
    """Return whether flakes, `--print-out-paths` and `drv^*` are supported (2.8, Debian 12's, has none of them)."""
    try:
        text = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=20).stdout
    except (OSError, subprocess.TimeoutExpired):
        return False
    match = re.search(r"(\d+)\.(\d+)", text)
    return match is not None and (int(match[1]), int(match[2])) >= OLDEST


def find(cache: Cache, base: Path) -> Nix:
    """Return the user's Nix or the lab's."""
    program = shutil.which("nix")
    if program and cache.directory not in Path(program).parents and new_enough(program):
        return of_the_user(cache, Path(program))
    made = cache.make(
        f"nix-{stamp([base.name, Path(__file__), Path(elf.__file__)])}",
        "making Nix from the base",
        lambda p: _extract(base, p),
    )
    return Nix(made / "bin", made / "etc", of_the_lab=True)


def of_the_user(cache: Cache, program: Path) -> Nix:
    """Return the user's program with a nix.conf that uses no network."""
    conf = cache.make(f"nix-conf-{stamp([NIX_CONF])}", "writing nix.conf", _write_conf)
    return Nix(program.parent, conf, of_the_lab=False)


def _write_conf(directory: Path) -> None:
    directory.mkdir(parents=True)
    (directory / "nix.conf").write_text(NIX_CONF)


def _extract(base: Path, made: Path) -> None:
    """Copy the program and its libraries, make each load the others from beside it, and all of them start quickly."""
    for part in ("bin", "lib"):
        (made / part).mkdir(parents=True)
    _write_conf(made / "etc")
    final = made.parent.parent / made.name  # the final directory of `make`: the interpreter's path is absolute
    loader = None
    for library in _libraries(base, "/usr/bin/nix"):
        target = made / "lib" / Path(library).name
        shutil.copy(base / library.lstrip("/"), target)
        if target.name.startswith("ld-"):
            loader = target
        else:
            call(["patchelf", "--set-rpath", "$ORIGIN", target])
            bind_lazily(target)
    assert loader is not None, "ldd names the loader of a dynamic program"
    program = made / "bin" / "nix"
    shutil.copy(base / "usr/bin/nix", program)
    call(["patchelf", "--set-interpreter", final / "lib" / loader.name, "--set-rpath", "$ORIGIN/../lib", program])
    bind_lazily(program)
    for alias in ALIASES:
        os.symlink("nix", made / "bin" / alias)


def _libraries(base: Path, program: str) -> Iterator[str]:
    """Return the absolute paths below `base` of what `program` loads, including the loader."""
    for line in call(["chroot", base, "ldd", program]).splitlines():
        match = re.search(r"(/\S+) \(0x", line)
        if match:
            yield match[1]
