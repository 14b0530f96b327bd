"""How our operations plan, act and refuse: a line per step, the same line when planned and when done.

pyinfra runs an operation's body at Prepare up to its first command and whole at Execute. An exception there
would stop the run for every host; what is wrong with one host must fail that host alone.
"""

import shlex
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pyinfra.api.command import FunctionCommand, StringCommand
from pyinfra.api.host import Host
from pyinfra.api.state import State
from pyinfra.connectors.util import CommandOutput

from nixherd.errors import FAILURES, FleetError
from nixherd.faults import worded
from nixherd.pyinfra_glue.hosts import (
    build_selection,
    connector_of,
    evaluated,
    executing,
    failed,
    fleet_host,
    selection,
    session_of,
    vm_of,
)
from nixherd.pyinfra_glue.operation import Commands, complain

if TYPE_CHECKING:
    from nixherd.pyinfra_glue.fleet import FleetConnector

__all__ = [
    "Commands",
    "build_selection",
    "complain",
    "connector_of",
    "evaluated",
    "executing",
    "failed",
    "fleet_host",
    "selection",
    "session_of",
    "vm_of",
]

COMMAND_DEADLINE = 120  # seconds for a command of ours; what takes longer is a job


def do(host: Host, summary: str, act: Callable[[], object], *, by_api: bool = False, changes: bool = True) -> Commands:
    """One step: say it, and (at Execute) do it, while no other run does. What goes wrong fails this host.

    `by_api`: all that it changes is changed by the hypervisor, which counts what it took; on a machine that a step
    failed on, something may have changed.
    """
    host.log(summary)
    if (journal := session_of(host).journal) is not None:
        journal.note("step", host.data.host_id, text=summary, planned=not executing(host))

    def step(state: State, host: Host) -> bool:
        session, host_id = session_of(host), host.data.host_id
        before = session.accepted_changes
        try:
            session.claim(host_id)
            act()
        except FAILURES as error:
            failure = worded(error, f"{host_id}: {summary}")
            session.failed(host_id, failure, changed=changes and (not by_api or session.accepted_changes > before))
            complain(host, failure)
            return False
        if changes:
            session.touched.add(host_id)
        return True

    yield FunctionCommand(step, (), {})


def refuse(host: Host, error: Exception) -> Commands:
    """Fail this host and no other, in whichever stage we are."""

    def no(state: State, host: Host) -> bool:
        return False

    session_of(host).failed(host.data.host_id, error)
    complain(host, error)
    if executing(host):
        yield FunctionCommand(no, (), {})
    else:
        host.state.fail_hosts({host})


def decide(host: Host, body: Callable[[], Commands]) -> Commands:
    """Run an operation's body; what it finds wrong, or what is wrong with it, is a refusal of this host."""
    if failed(host):
        return
    try:
        yield from body()
    except FAILURES as error:
        yield from refuse(host, worded(error, f"{host.data.host_id}: {_row(host)}"))


def _row(host: Host) -> str:
    """What the row that is under way is called."""
    names = host.state.get_op_meta(host.current_op_hash).names if host.current_op_hash else {"planning"}
    return ", ".join(sorted(names))


def shell(host: Host, script: str, *, stdin: str | None = None, what: str = "", sudo: bool = False) -> str:
    """Run a script on the machine, by root with `sudo`, and return its standard output.

    FleetError with its last words when it fails.
    """
    ok, output = remote(host, script, stdin=stdin, sudo=sudo)
    if not ok:
        words = (output.stderr_lines or output.stdout_lines or ["no answer"])[-3:]
        raise FleetError(f"{host.name}: {what or 'a command'} failed: {' / '.join(words)}")
    return str(output.stdout)


def leave(host: Host, script: str, *, sudo: bool = False) -> None:
    """Run what makes the machine go down. FleetError when it says that it cannot.

    One that is gone before it answers did as it was told: the caller waits for what comes back.
    """
    ok, output = remote(host, script, sudo=sudo)
    if not ok and (words := (output.stderr_lines or output.stdout_lines)[-3:]):
        raise FleetError(f"{host.name}: the reboot failed: {' / '.join(words)}")


def as_root(host: Host, script: str, *, stdin: str | None = None, what: str = "") -> str:
    """As `shell`, by root."""
    return shell(host, script, stdin=stdin, what=what, sudo=True)


def remote(host: Host, script: str, *, stdin: str | None = None, sudo: bool = False) -> tuple[bool, CommandOutput]:
    """As `shell`, for those who judge the status themselves. TimeoutError after COMMAND_DEADLINE."""
    if sudo:
        script, stdin = _by_root(connector_of(host), script, stdin)
    arguments: dict[str, Any] = {"_stdin": [stdin]} if stdin is not None else {}
    ok, output = host.run_shell_command(StringCommand(script), _timeout=COMMAND_DEADLINE, **arguments)
    return bool(ok), output


def _by_root(connector: "FleetConnector", script: str, stdin: str | None) -> tuple[str, str | None]:
    """The script by sudo, where we are not root, which reads the first line of stdin and leaves the rest to the script.

    pyinfra's own way would put the password into the machine's argv.
    """
    if connector.data["ssh_user"] == "root":
        return script, stdin
    if connector.sudo_password is None:
        return f"sudo -n -H sh -c {shlex.quote(script)}", stdin
    return f"sudo -S -k -H -p '' sh -c {shlex.quote(script)}", f"{connector.sudo_password}\n{stdin or ''}"
