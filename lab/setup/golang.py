"""Programs built with Go from a module of a pinned version, for tests; kept in the cache."""

import os
import shutil
from pathlib import Path

from lab.errors import LabError
from lab.setup.cache import Cache, call, stamp

ACTIONLINT = "github.com/rhysd/actionlint/cmd/actionlint@v1.7.12"
ACT = "github.com/nektos/act@v0.2.89"


class GoMissing(LabError):
    """Go is not installed."""


def program(cache_directory: Path, module: str, minutes: int) -> Path:
    """Return this module's program, built if missing in about `minutes`. Raises GoMissing, LabError."""
    name = module.partition("@")[0].rpartition("/")[2]
    with Cache(cache_directory, print) as cache:
        what = f"building {name} ({minutes} minutes)"
        return cache.make(f"{name}-{stamp([module])}", what, lambda path: install(path, module)) / name


def install(path: Path, module: str) -> None:
    """Build the module's program into the directory `path`. Raises GoMissing, LabError."""
    go = shutil.which("go") or shutil.which("/usr/local/go/bin/go")
    if not go:
        raise GoMissing(f"{module} is built with Go: install it, or put it on PATH")
    settings = [f"GOBIN={path}", "CGO_ENABLED=0", "GOFLAGS=-trimpath -buildvcs=false"]
    path_of_go = f"PATH={Path(go).parent}:{os.environ.get('PATH', os.defpath)}"  # the program starts itself again
    call(["env", path_of_go, *settings, go, "install", "-ldflags=-s -w", module])
