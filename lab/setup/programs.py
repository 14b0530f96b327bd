"""Programs that only tests need: the gate's tools, compose-go, actionlint, act, promtool, and Chromium.

Built before the tests begin, because a build holds the cache's lock for minutes, longer than any test may take.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from lab.setup import chromium, compose, gate, golang, promtool


def build(cache_directory: Path, progress: Callable[[str], None]) -> None:
    """Build what is missing; without a compiler, say so, and the tests are skipped. Raises LabError."""
    for build_one in (
        gate.build,
        compose.build,
        partial(golang.program, module=golang.ACTIONLINT, minutes=1),
        partial(golang.program, module=golang.ACT, minutes=3),
        promtool.build,
        chromium.build,
    ):
        try:
            build_one(cache_directory)
        except (gate.CargoMissing, golang.GoMissing, promtool.AptMissing, chromium.BrowserMissing) as missing:
            progress(f"{missing}; tests that need it are skipped")
