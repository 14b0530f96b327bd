"""nix-eval-jobs' command line and what it prints: hosts evaluated side by side, each of which may fail alone. Pure.

Source: its README and --help. Versions without --select cannot be given a flake and an expression without making the
evaluation impure, which might come to other systems than `nix eval` does; they are as good as none.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nixherd.base.errors import FleetError
from nixherd.nix.commands import Evaluated, configurations, evaluated, jobs_of
from nixherd.nix.errors import explain

PROGRAM = "nix-eval-jobs"
HELP = (PROGRAM, "--help")
BYTES_PER_WORKER = 4 << 30  # after which it begins anew; its own default


def is_usable(help_text: str) -> bool:
    return "--select" in help_text and "--apply" in help_text


def jobs(flake: str, host_ids: Sequence[str], *, is_nixos: bool, roots: str, workers: int) -> list[str]:
    """Evaluate hosts side by side; the derivations that they come to are held by links in `roots`."""
    options = ["--gc-roots-dir", roots, "--workers", str(workers), "--max-memory-size", str(BYTES_PER_WORKER >> 20)]
    options += ["--show-trace", "--select", jobs_of(host_ids, is_nixos=is_nixos), "--apply", "job: job.nixherd"]
    features = ["--option", "experimental-features", "nix-command flakes"]
    return [PROGRAM, *features, *options, "--flake", f"{flake}#{configurations(is_nixos=is_nixos)}"]


def parse(lines: Iterable[str], directory: Path) -> dict[str, Evaluated | FleetError]:
    """Parse what it printed, by host id: a description, or why the flake in `directory` cannot be evaluated.

    Raise FleetError on anything else.
    """
    hosts: dict[str, Evaluated | FleetError] = {}
    for line in lines:
        try:
            job: Mapping[str, Any] = json.loads(line)
            host_id = str(job["attrPath"][0])
            if "error" in job:
                hosts[host_id] = FleetError(explain(str(job["error"]), directory))
            else:
                hosts[host_id] = evaluated(host_id, job["extraValue"])
        except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            raise FleetError(f"{PROGRAM} printed something unexpected ({error!r}): {line[:200]}") from error
    return hosts
