"""sops and age-keygen, built by Go without C libraries: the same program runs here and on every machine of the lab."""

import os
import re
import shutil
import subprocess
from pathlib import Path

from lab.errors import LabError
from lab.setup.cache import Cache, stamp

MODULES = ("github.com/getsops/sops/v3/cmd/sops@v3.11.0", "filippo.io/age/cmd/age-keygen@v1.2.1")
OLDEST_GO = (1, 21)  # which fetches the newer one that a module asks for by itself


def build(cache: Cache) -> Path:
    """The directory with the programs."""
    return cache.make(f"tools-{stamp([*MODULES, Path(__file__)])}", "building sops and age-keygen (2 minutes)", _build)


def _build(path: Path) -> None:
    program = shutil.which("go") or "/usr/local/go/bin/go"
    if not _new_enough(program):
        raise LabError(f"sops is built with Go {'.'.join(map(str, OLDEST_GO))} or newer; install it, or put it on PATH")
    environment = os.environ | {"GOBIN": str(path), "CGO_ENABLED": "0", "GOFLAGS": "-trimpath -buildvcs=false"}
    for module in MODULES:
        done = subprocess.run(
            [program, "install", "-ldflags=-s -w", module], env=environment, capture_output=True, text=True
        )
        if done.returncode:
            raise LabError(f"go install {module}: {done.stderr.strip().splitlines()[-1]}")


def _new_enough(program: str) -> bool:
    try:
        text = subprocess.run([program, "version"], capture_output=True, text=True).stdout
    except OSError:
        return False
    found = re.search(r"go(\d+)\.(\d+)", text)
    return found is not None and (int(found[1]), int(found[2])) >= OLDEST_GO
