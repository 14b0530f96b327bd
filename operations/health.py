"""Whether a machine passes its health checks; each is tried until it does, or its time is over."""

import shlex
import time

from pyinfra.api.host import Host

from nixherd.fleet.health_checks import Check
from nixherd.pyinfra_glue import through
from operations.steps import connector_of, remote

PAUSE = 1.0  # seconds between two tries
SHOWN = 200  # characters of what a command says


def failing(host: Host, checks: tuple[Check, ...], until: float, *, by_root: bool) -> str | None:
    """What does not pass, in one line; None when all do. No check is tried after `until`, by the monotonic clock."""
    for check in checks:
        end = min(until, time.monotonic() + check.timeout)
        while (problem := _problem(host, check, by_root=by_root)) is not None:
            if time.monotonic() + PAUSE >= end:
                return f"{check} does not pass: {problem}"
            time.sleep(PAUSE)
    return None


def by_connection(host: Host, check: Check) -> str | None:
    """What a `tcp` or `http` check does not pass for, None when it does: asked through the connection that stands."""
    connector = connector_of(host)
    try:
        if check.kind == "tcp":
            with through.channel(connector, check.address, check.timeout):
                return None
        status = through.status(connector, check.value, check.address, check.timeout)
        return None if status == check.status else f"it answers {status}, not {check.status}"
    except OSError as error:
        return str(error)


def _problem(host: Host, check: Check, *, by_root: bool) -> str | None:
    try:
        match check.kind:
            case "tcp" | "http":
                return by_connection(host, check)
            case "unit":
                script = f"state=$(systemctl is-active -- {shlex.quote(check.value)}); echo $state; [ $state = active ]"
            case _:
                script = f"timeout {check.timeout} sh -c {shlex.quote(check.value)}"
        ok, output = remote(host, script, sudo=by_root)
    except OSError as error:
        return str(error)
    lines = [*output.stdout_lines, *output.stderr_lines]
    return None if ok else f"it says {(lines or ['nothing'])[-1][:SHOWN]}"
