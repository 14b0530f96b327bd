"""The gate of an update: a command that ends with 0 for a tree that may be merged, and what it says of others."""

import contextlib
import json
import math
import os
import re
import shutil
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nixherd.display import visible
from nixherd.errors import DeadlineExceeded, FleetError, ProcessFailed
from nixherd.nix.errors import innermost_error
from nixherd.process import Completed, run

# A tree that is judged gets none of what the CI has for who pushes; nor does what the gate says count as the CI's own.
_OF_THE_CI = re.compile(
    r"(GITHUB|GH|ACTIONS|RUNNER|GITLAB|CI_JOB|CI_REGISTRY|GITEA|FORGEJO)_.*|SSH_AUTH_SOCK"
    r"|GIT_(?!CONFIG_(GLOBAL|SYSTEM|NOSYSTEM)$).*|.*(TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIAL).*|(.*_)?KEY"
)
# With these a gate says that it could not do its work, and nothing of the tree: our own 4 and 5, timeout(1)'s 124,
# the shell's 126, 127, and 128 with a signal.
_NO_ANSWER = {4, 5, 124, 126, 127}
_FOUND = 1  # our own gate's, and no other status of it says that it looked
# Of what Nix and curl say, what is wrong with a network, a server or this machine.
_ELSEWHERE = re.compile(
    r"could(n't| not) (resolve|connect)|timeout was reached|timed out|connection (refused|reset)|rate limit"
    r"|HTTP error (403|429|5\d\d)|no space left on device|cannot allocate memory|cannot connect to (socket|daemon)",
    re.IGNORECASE,
)
_LINES = 8
_LONGEST = 400  # characters of a line


@dataclass(frozen=True)
class Verdict:
    """Whether a tree may be merged; `reasons` are lines, the first one the most telling.

    Without `answered` the gate has not judged the tree: it did not end in time, was killed, lacks a program.
    """

    passed: bool
    reasons: tuple[str, ...] = ()
    answered: bool = True

    @property
    def reason(self) -> str:
        return self.reasons[0] if self.reasons else "the gate gave no reason"


@dataclass(frozen=True)
class TreeGate:
    """`command` is the shell's, run in the fleet's directory, which is in $FLEET, too; `timeout` is in seconds."""

    command: str | None = None
    timeout: float = 4 * 3600.0

    def judge(self, fleet: Path, left: float = math.inf) -> Verdict:
        """`left` seconds are there at most. FleetError when the gate cannot be started."""
        bin = Path(sys.executable).parent
        env = {name: value for name, value in os.environ.items() if not _OF_THE_CI.fullmatch(name)}
        env |= {"PATH": f"{bin}:{env.get('PATH', os.defpath)}", "FLEET": str(fleet)}
        if self.command is not None:
            argv = ["/bin/sh", "-c", self.command]
        else:
            argv = [shutil.which("nixherd", path=env["PATH"]) or "nixherd", "--fleet", str(fleet), "check", "--json"]
        pids = set[int]()
        try:
            limit = min(self.timeout, left)
            done = run(argv, cwd=fleet, env=env, closed=True, timeout=limit, check=False, watch=pids.add)
        except DeadlineExceeded as error:
            return Verdict(False, (visible(error),), answered=False)
        except ProcessFailed as error:
            raise FleetError(f"the gate cannot be run: {error}") from error
        finally:
            for group in pids:  # what it left behind would go on in a tree that is another one by then
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(group, signal.SIGKILL)
        if done.status == 0:
            return Verdict(True)
        found, unknown = _said(done.stdout)
        answered = 0 < done.status <= 128 and done.status not in _NO_ANSWER and not (unknown and not found)
        answered = answered and (self.command is not None or done.status == _FOUND)
        reasons = _reasons(found or unknown, done)
        answered = answered and not all(_ELSEWHERE.search(each) for each in reasons)
        more = (f"(and {len(reasons) - _LINES} more)",) if len(reasons) > _LINES else ()
        return Verdict(False, (*reasons[:_LINES], *more), answered)


def _reasons(found: Sequence[str], done: Completed) -> list[str]:
    found = list(found)
    if not found and "error:" in done.stderr:
        found = [innermost_error(done.stderr)]
    if not found:
        lines = (done.stderr if done.stderr.strip() else done.stdout).splitlines()
        found = [line.strip() for line in lines if line.strip()][-1:]
    return [visible(" ".join(line.split()))[:_LONGEST] for line in found or [f"status {done.status}"]]


def _said(text: str) -> tuple[list[str], list[str]]:
    """Of `nixherd check --json`: what each finding says, errors first, and what the tools that cannot tell say.

    Nothing where it is something else.
    """
    try:
        document = json.loads(text)
        rows = sorted(document["findings"], key=lambda row: row.get("severity") == "warning")
        tools = [f"{each['name']}: {each['reason']}" for each in document.get("tools", ()) if each.get("reason")]
        return [_line(row) for row in rows], tools
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return [], []


def _line(row: Mapping[str, object]) -> str:
    place = ":".join(str(row[key]) for key in ("file", "line") if row.get(key))
    what = next((str(row[key]) for key in ("what", "message", "text") if row.get(key)), "")
    return ": ".join(part for part in (str(row.get("tool") or ""), place, what) if part)
