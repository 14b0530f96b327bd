"""Runs the tools of the gate side by side; whatever becomes of one, the others go on."""

import time
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from nixherd.errors import FAILURES, Usage
from nixherd.faults import worded
from nixherd.gate.results import Look, Missing, Result
from nixherd.gate.tools import TOOLS, Scope, Tool
from nixherd.process import interrupt_all

Say = Callable[[str], None]
_PATIENCE = 10.0  # seconds, after which it is said what is waited for


def require_known(names: Collection[str], option: str) -> None:
    """Usage for a name that is no tool's."""
    for name in names:
        if name not in TOOLS:
            raise Usage(f"{option} {name}: there is no such tool; there are {', '.join(TOOLS)}")


def run_all(
    scope: Scope, without: Collection[str] = (), only: Collection[str] = (), say: Say | None = None
) -> Iterator[Result]:
    """How each tool ends, in the order of TOOLS, as soon as it and all before it have ended.

    `without` are left out by the operator's word, as is everything but `only`, where that is given. `say` is told what
    is waited for.
    """
    if set(only or TOOLS) <= set(without):
        raise Usage("nothing is left to run; leave out fewer tools")
    reasons = {name: _why_not(tool, scope, without, only) for name, tool in TOOLS.items()}
    wanted = [tool for name, tool in TOOLS.items() if not reasons[name]]
    pool = ThreadPoolExecutor(max(1, len(wanted)))
    try:
        # The slow ones begin first: the others fit beside them.
        running = {tool.name: pool.submit(_timed, tool, scope) for tool in reversed(wanted)}
        for name in TOOLS:
            if reasons[name]:
                yield Result(name, not_run=True, note=reasons[name])
                continue
            _wait(running[name], running, say)
            yield running[name].result()
    except KeyboardInterrupt:
        interrupt_all()  # a Ctrl-C does not reach what we have started
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _why_not(tool: Tool, scope: Scope, without: Collection[str], only: Collection[str]) -> str:
    if tool.name in without:
        return "--without"
    if only:
        return "" if tool.name in only else "--only"
    return "--changed" if scope.only_changed and not tool.is_quick else ""


def _wait(one: "Future[Result]", running: "dict[str, Future[Result]]", say: Say | None) -> None:
    while say:
        try:
            one.result(_PATIENCE)
        except TimeoutError:
            left = [name for name, each in running.items() if not each.done()]
            say(f"{len(running) - len(left)} of {len(running)} done, waiting for {', '.join(reversed(left))}")
        else:
            return


def _timed(tool: Tool, scope: Scope) -> Result:
    began = time.monotonic()
    look, missing = Look(), False
    try:
        look = tool.check(scope)
    except Missing as error:
        look, missing = Look(unknown=f"{error}; --without {tool.name} leaves it out, and says so"), True
    except FAILURES as error:
        look = Look(unknown=str(worded(error, f"{scope.root}: {tool.name}")))
    seconds = time.monotonic() - began
    return Result(tool.name, tuple(look.findings), look.unknown, missing, note=look.note, seconds=seconds)
