"""Whether a machine passes its health checks, and whether one that runs what is wanted is well."""

import http.client
import math
import shlex
import time
from dataclasses import replace
from typing import Any

from nixherd.base.errors import Unforeseen
from nixherd.base.process import Completed
from nixherd.base.reasons import failure
from nixherd.base.waiting import Backoff, poll
from nixherd.deploy.machine import ANSWER_DEADLINE, Machine
from nixherd.deploy.protocol import Kind
from nixherd.deploy.running import Running, home_script, parse_running, require_root, system_script
from nixherd.fleet.health_checks import Check
from nixherd.fleet.models import Access

PAUSE = 1.0  # seconds between two tries
_SHOWN = 200  # characters of what a command says
_MARK = "check."  # before the number of a check, in what a machine answers
_BY_SHELL = ("unit", "command")  # kinds of checks that the machine's shell does


def failing(machine: Machine, checks: tuple[Check, ...], until: float, *, by_root: bool) -> str | None:
    """The first check that does not pass, and why, in one line; None when all do.

    Each is tried until its time is over; none after `until`, by the monotonic clock.
    """
    for check in checks:
        seconds = min(until - time.monotonic(), check.timeout)
        for _ in (waits := poll(seconds - PAUSE, Backoff(PAUSE, PAUSE))):
            if (
                problem := _problem(machine, check, max(1, math.ceil(seconds - waits.waited)), by_root=by_root)
            ) is None:
                break
        else:
            return f"{check} does not pass: {problem}"
    return None


def _problem(machine: Machine, check: Check, seconds: int, *, by_root: bool) -> str | None:
    """Why a check does not pass, None when it does; a command of the machine's is ended after so many seconds."""
    if check.kind not in _BY_SHELL:
        return _by_tunnel(machine, check)
    try:
        done = machine.run(_try(0, check, seconds), sudo=by_root, deadline=ANSWER_DEADLINE + seconds)
    except Unforeseen:
        raise
    except OSError as error:
        return str(error)
    *_, last = ["nothing", *done.stdout.splitlines(), *done.stderr.splitlines()]  # of sudo, where it was not even tried
    return _results(done).get("0", f"it says {last[:_SHOWN]}") or None


def _by_tunnel(machine: Machine, check: Check) -> str | None:
    """Why a `tcp` or `http` check does not pass, None when it does."""
    try:
        if check.kind == "tcp":
            with machine.tunnel(check.address, check.timeout):
                return None
        status = _http_status(machine, check)
        return None if status == check.status else f"it answers {status}, not {check.status}"
    except Unforeseen:
        raise
    except OSError as error:
        return str(error)


def _http_status(machine: Machine, check: Check) -> int:
    """The status that a URL answers with. OSError when it does not answer."""
    path = "/" + check.value.split("/", 3)[3] if check.value.count("/") > 2 else "/"
    with machine.tunnel(check.address, check.timeout) as tunnel:
        connection = http.client.HTTPConnection(*check.address, timeout=check.timeout)
        connection.sock = _Unclosed(tunnel)
        try:
            connection.request("GET", path, headers={"User-Agent": "nixherd", "Connection": "close"})
            return connection.getresponse().status
        except http.client.HTTPException as error:
            raise OSError(f"{check.value} does not answer with HTTP: {error!r}") from error


class _Unclosed:
    """As much of a socket as http.client takes; the tunnel is its owner's to close."""

    def __init__(self, tunnel: Any) -> None:
        self.sendall, self.makefile = tunnel.sendall, tunnel.makefile

    def close(self) -> None:
        """Leave it open."""


def unwell(
    machine: Machine, kind: Kind, running: Running, checks: tuple[Check, ...], target: str
) -> tuple[str | None, Running]:
    """What is wrong with a machine that runs `target`, None where nothing is; and what runs there now.

    Where there are health checks it is all asked anew, with them, in one round trip, until they pass or their time is
    over; else `running` is what counts.
    """
    if not checks:
        return _problem_of(running), running
    if machine.access is Access.PUSH_CLOSURE:
        unasked = "it takes forced commands alone, so its health checks cannot be asked"
        return _problem_of(running) or unasked, running
    if needs_root(kind, checks):
        require_root(machine, running)
    for _ in poll(max(check.timeout for check in checks) - PAUSE, Backoff(PAUSE, PAUSE)):
        answer, failure = _ask_all(machine, kind, checks)
        running = replace(answer, sudo=running.sudo)  # it may have been asked as root
        if running.current != target:
            return f"it runs {running.current} now", running
        if failure is None:
            break
    return _problem_of(running) or failure, running


def _problem_of(running: Running) -> str | None:
    if running.at_work:
        return f"an activation is under way there ({', '.join(running.at_work)}); wait for its end, or end it there"
    if running.unwell:
        return (
            f"units fail there that did not when a deployment was kept last: {', '.join(running.unwell)}; "
            f"see `journalctl -u {running.unwell[0]}` there"
        )
    return None


def _ask_all(machine: Machine, kind: Kind, checks: tuple[Check, ...]) -> tuple[Running, str | None]:
    """What the machine says of itself, and the first check that does not pass."""
    state = system_script(machine.become) if kind is Kind.SYSTEM else home_script()
    script = "\n".join([f"({state})", *(_try(number, check, check.timeout) for number, check in enumerate(checks))])
    patience = sum(check.timeout for check in checks if check.kind in _BY_SHELL)
    done = machine.run(script, sudo=needs_root(kind, checks), deadline=ANSWER_DEADLINE + patience)
    lines = [line for line in done.stdout.splitlines() if not line.startswith(_MARK)]
    if done.status != 0 or not lines:
        raise failure(f"{machine.id}: it did not say how it is", done.stderr)
    running, results = parse_running(kind, lines), _results(done)
    for number, check in enumerate(checks):
        by_shell = check.kind in _BY_SHELL
        if problem := (results.get(str(number), "it says nothing") if by_shell else _by_tunnel(machine, check)):
            return running, f"{check} does not pass: {problem}"
    return running, None


def needs_root(kind: Kind, checks: tuple[Check, ...]) -> bool:
    """Whether root asks the checks: commands of a system's, which may read what others may not."""
    return kind is Kind.SYSTEM and any(check.kind == "command" for check in checks)


def _try(number: int, check: Check, seconds: int) -> str:
    """A script that prints nothing after the check's number where it passes, and what it says where it does not."""
    if check.kind not in _BY_SHELL:
        return ":"
    word = shlex.quote(check.value)
    command = f"timeout {seconds} sh -c {word}"
    if check.kind == "unit":
        command = f'state=$(systemctl is-active -- {word}); echo "$state"; [ "$state" = active ]'
    words = f"it says $(printf '%s\\n' \"${{output:-nothing}}\" | tail -n 1 | cut -c 1-{_SHOWN})"
    return f'if output=$({{ {command}; }} 2>&1); then echo {_MARK}{number}=; else echo "{_MARK}{number}={words}"; fi'


def _results(done: Completed) -> dict[str, str]:
    """What each check said, by its number; empty text where it passes."""
    lines = (line.removeprefix(_MARK) for line in done.stdout.splitlines() if line.startswith(_MARK))
    return dict(line.split("=", 1) for line in lines)
