"""compose-go's own validator, which reads compose files like docker compose; for tests."""

from pathlib import Path

from lab.setup import golang
from lab.setup.cache import Cache, stamp

MODULE = "github.com/compose-spec/compose-go/v2/cmd@v2.16.2"


def build(cache_directory: Path) -> Path:
    """Return the program: `PROGRAM FILE` exits with 0, or prints what is wrong. Raises GoMissing, LabError."""
    with Cache(cache_directory, print) as cache:
        made = cache.make(
            f"compose-{stamp([MODULE])}", "building compose-go (2 minutes)", lambda path: golang.install(path, MODULE)
        )
        return made / "cmd"
