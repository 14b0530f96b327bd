"""One evaluation in a separate process: its messages, cost and result."""

import json
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

_HERE = Path(__file__).resolve().parent
# Only local inputs: no substituter, no registry, no cache of an earlier run.
_OFFLINE = ("--offline", "--extra-experimental-features", "nix-command flakes", "--option", "flake-registry", "")
# Messages of `lib.warn` and Nix during an evaluation; of Nix' own, those about the fleet, not about this computer.
_WARNING = re.compile(r"^(?:trace: )?(?:evaluation )?warning: (.*)")
_OF_THE_MACHINE = re.compile(
    r"Git tree '.*' is dirty|The check omitted these incompatible systems|you don't have Internet access|"
    "not writing modified lock file"
)


@dataclass(frozen=True)
class Took:
    """Wall-clock and CPU seconds, and peak memory in GB."""

    wall: float = 0.0
    cpu: float = 0.0
    memory: float = 0.0


@dataclass(frozen=True)
class Evaluation:
    """The result of one evaluation; `error` is empty on success, and `answer` is evaluate.nix's result."""

    kind: str
    name: str
    error: str = ""
    warnings: Sequence[str] = ()
    failed: Sequence[str] = ()
    took: Took = Took()
    answer: Any = field(default=None, repr=False)

    @property
    def problems(self) -> int:
        """The number of problems."""
        return bool(self.error) + len(self.warnings) + len(self.failed)


def ask(kind: str, name: str, fleet: Path, sources: Mapping[str, Path]) -> Evaluation:
    """Evaluate one host, home or package; `kind` "names" lists them."""
    question = {
        "fleet": str(fleet),
        "sources": {name: str(path) for name, path in sources.items()},
        "ask": None if kind == "names" else {"kind": kind, "name": name},
    }
    environment = {"FLEET_REAL": json.dumps(question), "FLEET_REAL_NIX": str(_HERE / "evaluate.nix")}
    expression = 'import (builtins.getEnv "FLEET_REAL_NIX") (builtins.fromJSON (builtins.getEnv "FLEET_REAL"))'
    argv = ["nix", "eval", "--json", "--read-only", "--impure", *_OFFLINE, "--expr", expression]
    status, out, log, took = _run(argv, environment)
    if status:
        return Evaluation(kind, name, error=_last(log), warnings=_warnings(log), took=took)
    answer = json.loads(out)
    warnings = answer.get("warnings", [])
    # the system's own warnings repeat these; print each line once
    first_lines = {line for text in warnings for line in text.splitlines()[:1]}
    warnings += [words for words in _warnings(log) if words not in first_lines]
    return Evaluation(kind, name, warnings=warnings, failed=answer.get("failed", ()), answer=answer, took=took)


def flake_check(fleet: Path, sources: Mapping[str, Path]) -> Evaluation:
    """Run `nix flake check --no-build`: every output in one process, with the given inputs."""
    overrides = [part for name, path in sources.items() for part in ("--override-input", name, f"path:{path}")]
    # of a repository what is committed or staged; a checkout has environments and caches beside it
    flake = f"git+file://{quote(str(fleet))}" if (fleet / ".git").exists() else f"path:{fleet}"
    argv = ["nix", "flake", "check", "--no-build", "--no-write-lock-file", *_OFFLINE, *overrides, flake]
    status, _, log, took = _run(argv, {})
    return Evaluation("flake check", "", error=_last(log) if status else "", warnings=_warnings(log), took=took)


def _run(argv: Sequence[str], environment: Mapping[str, str]) -> tuple[int, str, str, Took]:
    """Return exit status, stdout, stderr and cost; the run has its own cache."""
    with tempfile.TemporaryDirectory() as caches, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as log:
        started = time.monotonic()
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=log,
            env={**os.environ, **environment, "XDG_CACHE_HOME": caches},
        )
        _, ended, used = os.wait4(process.pid, 0)
        wall = time.monotonic() - started
        process.returncode = os.waitstatus_to_exitcode(ended)
        out.seek(0)
        log.seek(0)
        took = Took(wall, used.ru_utime + used.ru_stime, used.ru_maxrss / 1e6)
        return process.returncode, out.read().decode(), log.read().decode(errors="replace"), took


def _warnings(log: str) -> list[str]:
    warnings = [match[1] for line in log.splitlines() if (match := _WARNING.match(line))]
    return list(dict.fromkeys(words for words in warnings if not _OF_THE_MACHINE.search(words)))


def _last(log: str) -> str:
    """Return the error itself, which Nix prints after the trace that leads to it."""
    lines = log.strip().splitlines()
    starts = [at for at, line in enumerate(lines) if line.lstrip().startswith("error:")]
    if not starts:
        return lines[-1] if lines else "nix printed no message"
    return "\n".join(line.strip() for line in lines[starts[-1] :]).removeprefix("error:").strip()
