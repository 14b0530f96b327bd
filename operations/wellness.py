"""Whether a machine that runs what is wanted is well: the rest of what *unchanged* means."""

import shlex
import time
from collections.abc import Mapping
from typing import Any

from pyinfra.api.host import Host

from facts.home_manager import Home
from facts.nixos import Running
from nixherd.deploy.protocol import Kind
from nixherd.deploy.run import HostRun
from nixherd.errors import FleetError
from nixherd.fleet.health_checks import Check
from nixherd.fleet.models import Access
from operations.deploy_run import require_root
from operations.health import PAUSE, SHOWN, by_connection
from operations.steps import connector_of, remote

_MARK = "check."  # before the number of a check, in what a machine answers
_HERE = ("unit", "command")  # kinds of checks that the machine's shell does


def wrong_with(host: Host, own: HostRun, wanted: str) -> str | None:
    """What is wrong with a machine that runs `wanted`, in a line; None where nothing is.

    Where there are health checks it is all asked anew, with them, in one round trip, until they pass or their time is
    over; else what it said of itself when its path was asked.
    """
    assert own.state is not None
    if not own.checks:
        return _problem(own.state)
    if connector_of(host).access is Access.PUSH_CLOSURE:
        return _problem(own.state) or "it takes forced commands alone, so its health checks cannot be asked"
    if own.kind is Kind.SYSTEM and any(check.kind == "command" for check in own.checks):
        require_root(own)
    end = time.monotonic() + max(check.timeout for check in own.checks)
    while True:
        own.state, failing = _asked(host, own)
        if own.state["current"] != wanted:
            return f"it runs {own.state['current']} now"
        problem = _problem(own.state) or failing
        if failing is None or time.monotonic() + PAUSE >= end:
            return problem
        time.sleep(PAUSE)


def _problem(state: Mapping[str, Any]) -> str | None:
    if at_work := state.get("at_work"):
        return f"an activation is under way there ({', '.join(at_work)}); wait for its end, or end it there"
    if unwell := state.get("unwell"):
        return (
            f"units fail there that did not when a deployment was kept last: {', '.join(unwell)}; "
            f"see `journalctl -u {unwell[0]}` there"
        )
    return None


def _asked(host: Host, own: HostRun) -> tuple[Mapping[str, Any], str | None]:
    """What the machine says of itself, and the first check that does not pass."""
    fact = Running() if own.kind is Kind.SYSTEM else Home()
    script = "\n".join([f"({fact.command()})", *(_try(number, check) for number, check in enumerate(own.checks))])
    by_root = own.kind is Kind.SYSTEM and any(check.kind == "command" for check in own.checks)
    ok, output = remote(host, script, sudo=by_root)
    lines = [line for line in output.stdout_lines if not line.startswith(_MARK)]
    if not ok or not lines:
        raise FleetError(f"{own.id}: it did not say how it is: {(output.stderr_lines or ['no answer'])[-1]}")
    said = dict(line.removeprefix(_MARK).split("=", 1) for line in output.stdout_lines if line.startswith(_MARK))
    state: dict[str, Any] = {**(own.state or {}), **fact.process(lines)}
    for number, check in enumerate(own.checks):
        problem = by_connection(host, check) if check.kind not in _HERE else said.get(str(number), "it says nothing")
        if problem:
            return state, f"{check} does not pass: {problem}"
    return state, None


def _try(number: int, check: Check) -> str:
    """Prints nothing after the number where it passes."""
    if check.kind not in _HERE:
        return ":"
    if check.kind == "unit":
        command = f"systemctl is-active -- {shlex.quote(check.value)} 2>&1"
    else:
        command = f"timeout {check.timeout} sh -c {shlex.quote(check.value)} 2>&1"
    said = f"it says $(printf '%s\\n' \"$said\" | tail -n 1 | cut -c 1-{SHOWN})"
    return f'if said=$({command}); then echo {_MARK}{number}=; else echo "{_MARK}{number}={said}"; fi'
