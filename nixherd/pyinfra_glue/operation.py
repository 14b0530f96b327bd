"""The one way from a row of a deploy to its effect.

An operation reads, and returns the one change that it would make, or why it makes none. The decorator does the rest:
it says the change (the same line when planned and when made), claims the host, makes the change, and turns whatever
goes wrong into the failure of this host alone. An exception in a body of pyinfra's would stop the run for every host.
"""

from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import wraps
from typing import ParamSpec

from pyinfra import host, logger
from pyinfra.api import operation as pyinfra_operation
from pyinfra.api.arguments_typed import PyinfraOperation
from pyinfra.api.command import FunctionCommand, PyinfraCommand
from pyinfra.api.host import Host
from pyinfra.api.state import State

from nixherd.base.errors import FAILURES, NotBegun
from nixherd.base.terminal import worded
from nixherd.pyinfra_glue.context import Context
from nixherd.pyinfra_glue.hosts import context_of, executing, failed

P = ParamSpec("P")
Commands = Generator[PyinfraCommand, None, None]


@dataclass(frozen=True)
class Change:
    """What an operation is to do: `make` does it at Execute, and raises what went wrong.

    `by_api`: all of it is made by the hypervisor, which counts what it accepted; of a failed change elsewhere something
    may have been made. `changes`: whether anything is different afterwards; False for what only waits or verifies.
    `claims`: no other run may work on the host meanwhile.
    """

    summary: str
    make: Callable[[], object]
    by_api: bool = False
    changes: bool = True
    claims: bool = True


@dataclass(frozen=True)
class NoChange:
    """Nothing is to be done, and why: what was read."""

    reason: str


Planned = Change | NoChange | Commands
"""what an operation returns; commands are those of an operation of pyinfra's own (`apt.packages._inner(…)`)"""


def operation(
    *, is_idempotent: bool = True, require: Callable[[Host], object] = lambda host: None
) -> Callable[[Callable[P, Planned]], PyinfraOperation[P]]:
    """Make a function an operation of pyinfra; `require` raises for a host on which it is not to be used.

    Its body runs at Prepare, unless the run was started with -y, and again at Execute: it only reads.
    """

    def decorate(function: Callable[P, Planned]) -> PyinfraOperation[P]:
        @wraps(function)
        def commands(*args: P.args, **kwargs: P.kwargs) -> Commands:
            if failed(host):
                return
            try:
                require(host)
                planned = function(*args, **kwargs)
                if isinstance(planned, (Change, NoChange)):
                    yield from _planned(host, planned)
                else:
                    yield from planned
            except FAILURES as error:  # what it finds wrong, or what is wrong with it, fails this host
                yield from _refuse(host, error)

        return pyinfra_operation(is_idempotent=is_idempotent)(commands)

    return decorate


def _planned(host: Host, planned: Change | NoChange) -> Commands:
    """Say what is to be done, or why nothing is."""
    note = context.run.journal.note if (context := _context(host)) else None
    if isinstance(planned, NoChange):
        host.noop(planned.reason)
        if note:
            note("nothing", host.data.host_id, text=planned.reason)
        return
    host.log(planned.summary)
    if note:
        note("step", host.data.host_id, text=planned.summary, planned=not executing(host))
    yield FunctionCommand(_make, (planned,), {})


def _make(state: State, host: Host, change: Change) -> bool:
    """Make a planned change while no other run works on the host."""
    context, host_id = context_of(host), host.data.host_id
    run, hypervisor = context.run, context.hypervisor
    before = hypervisor.accepted_changes
    try:
        if change.claims:
            run.claim(host_id)
        change.make()
    except FAILURES as error:
        failure = worded(error, f"{host_id}: {change.summary}")
        is_begun = not isinstance(error, NotBegun) and (not change.by_api or hypervisor.accepted_changes > before)
        run.failed(host_id, failure, changed=change.changes and is_begun)
        complain(host, failure)
        return False
    if change.changes:
        run.touched.add(host_id)
    run.journal.note("made", host_id, text=change.summary)
    return True


def _refuse(host: Host, error: Exception) -> Commands:
    """Fail this host and no other, in whichever stage the run is."""
    failure = worded(error, f"{host.data.get('host_id') or host.name}: {_row(host)}")
    if context := _context(host):
        context.run.failed(host.data.host_id, failure)
    complain(host, failure)
    if executing(host):
        yield FunctionCommand(_fail, (), {})
    else:
        host.state.fail_hosts({host})


def _fail(state: State, host: Host) -> bool:
    return False


def complain(host: Host, error: Exception) -> None:
    for line in str(error).splitlines():
        host.log_styled(line, fg="red", log_func=logger.error)


def _context(host: Host) -> Context | None:
    """None for a host of an inventory that is not ours."""
    context: Context | None = host.data.get("context")
    return context


def _row(host: Host) -> str:
    """The name of the row that is under way."""
    names = host.state.get_op_meta(host.current_op_hash).names if host.current_op_hash else {"planning"}
    return ", ".join(sorted(names))
