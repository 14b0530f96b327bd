"""compose-go's own validator, which reads compose files as docker compose does; for tests."""

import shutil
from pathlib import Path

from lab.errors import LabError
from lab.setup.cache import Cache, call, stamp

MODULE = "github.com/compose-spec/compose-go/v2/cmd@v2.16.2"


class GoMissing(LabError):
    """There is no Go here."""


def build(cache_directory: Path) -> Path:
    """The program: `PROGRAM FILE` ends with 0, or says what is wrong with the file. Raises GoMissing, LabError."""
    with Cache(cache_directory, print) as cache:
        return cache.make(f"compose-{stamp([MODULE])}", "building compose-go (2 minutes)", _build) / "cmd"


def _build(path: Path) -> None:
    go = shutil.which("go") or shutil.which("/usr/local/go/bin/go")
    if not go:
        raise GoMissing(
            "compose files are checked by compose-go, which is built with Go: install it, or put it on PATH"
        )
    settings = [f"GOBIN={path}", "CGO_ENABLED=0", "GOFLAGS=-trimpath -buildvcs=false"]
    call(["env", *settings, go, "install", "-ldflags=-s -w", MODULE])
