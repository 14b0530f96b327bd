"""What pyinfra's own command line gets wrong, put right for one invocation.

pyinfra runs the inventory once, after it has read its command line and before it connects: the one place
where this can be done without a program of our own around it.
"""

import importlib
import inspect
import logging
import secrets
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any

import click
from gevent.local import local
from pyinfra import logger
from pyinfra.api.config import Config
from pyinfra.api.exceptions import PyinfraError
from pyinfra.api.facts import FactBase
from pyinfra.api.host import Host
from pyinfra.api.inventory import Inventory
from pyinfra.api.state import State, StateStage

from nixherd.base import terminal
from nixherd.base.errors import Exit, FleetError, Usage, exit_of, worst
from nixherd.base.process import end_all, interrupt_all
from nixherd.base.terminal import is_terminal, say, say_error, visible, worded
from nixherd.deploy.report import Journal
from nixherd.fleet.groups import separate
from nixherd.pyinfra_glue.context import Context


def check_command_line() -> None:
    """End the program with a line and status 2 for a `--data` that is not a pair, or an inventory that is not there."""
    options = click.get_current_context().params
    inventory = str(options.get("inventory") or "")
    wrong = [f"--data {pair}: write NAME=VALUE" for pair in options.get("data") or () if "=" not in pair]
    if inventory.endswith(".py") and not Path(inventory).exists():
        wrong.append(f"{inventory}: the inventory does not exist; nothing was done")
    for line in wrong[:1]:
        say_error(Usage(line))
        raise SystemExit(int(Exit.USAGE))


def put_right(context: click.Context, shared: Context | None = None) -> None:
    """Apply all of it to the invocation of this context. Usage for a wrong ad-hoc operation or fact."""
    lead_through(context)
    operations: Sequence[str] = context.params.get("operations") or ()
    _check_ad_hoc(operations)
    pyinfra: Any = importlib.import_module("pyinfra.context")
    state: State = pyinfra.ctx_state.get()
    _keep_going(state, pyinfra.ctx_config.get(), context.params.get("fail_percent"))
    _end_without_an_answer()
    _separate_patterns()
    _look_connectors_up_once()
    include_beside_the_file()
    if not is_terminal(sys.stdin) or "sudo_password=stdin" in (context.params.get("data") or ()):
        _never_prompt_for_sudo()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, partial(_interrupted, shared))
    context.call_on_close(end_all)
    is_json = bool(context.params.get("json_output"))
    context.with_resource(_truthful_end(state, shared, is_fact=operations[:1] == ("fact",), is_json=is_json))


def _keep_going(state: State, config: Config, fail_percent: int | None) -> None:
    """A failed or unreachable host is reported at the end; it asks nothing, and stops the others only when told to.

    Without -y pyinfra asks at every failure and overrules --fail-percent with 0.
    """
    if fail_percent is None:
        state.should_raise_failed_hosts = lambda state: False
    else:
        state.should_raise_failed_hosts = None
        config.FAIL_PERCENT = fail_percent


def _end_without_an_answer() -> None:
    """Where pyinfra asks whether to go on and stdin has no answer, it would show a traceback."""
    pyinfra_cli: Any = importlib.import_module("pyinfra_cli.cli")
    ask: Callable[[str], bool] = pyinfra_cli._do_confirm

    def ask_or_end(question: str) -> bool:
        try:
            return ask(question)
        except EOFError:
            why = "stdin gives no answer; -y executes without asking, --dry only plans"
            raise SystemExit(f"\nnothing was executed: {why}") from None

    pyinfra_cli._do_confirm = ask_or_end


def _separate_patterns() -> None:
    """`--limit a,b` is two patterns, as everybody else takes it; pyinfra looks for one host of that name."""
    pyinfra_cli: Any = importlib.import_module("pyinfra_cli.cli")
    find: Callable[..., list[Host]] = pyinfra_cli._get_inventory_pattern_matches
    if getattr(find, "separates", False):
        return

    def find_each(inventory: Inventory, patterns: Iterable[str], option_name: str) -> list[Host]:
        return find(inventory, separate(patterns, inventory.groups), option_name)

    find_each.separates = True  # type: ignore[attr-defined]
    pyinfra_cli._get_inventory_pattern_matches = find_each


def _look_connectors_up_once() -> None:
    """pyinfra reads what is installed here for each host anew: 3 ms, a third of a second for a hundred hosts."""
    connectors: Any = importlib.import_module("pyinfra.api.connectors")
    inventory: Any = importlib.import_module("pyinfra.api.inventory")
    if not hasattr(connectors.get_all_connectors, "cache_info"):
        connectors.get_all_connectors = inventory.get_all_connectors = cache(connectors.get_all_connectors)


def include_beside_the_file() -> None:
    """`local.include("./x.py")` is beside the file that says it, for each of the hosts whose files are loaded at once.

    pyinfra keeps the name of the file that is loaded in one place for all: a host that is through with its own, or
    fails, had the others look in the directory that pyinfra was started in.
    """
    state: Any = State
    of_host = local()
    state.current_exec_filename = property(
        lambda _: getattr(of_host, "name", None), lambda _, name: setattr(of_host, "name", name)
    )


def _never_prompt_for_sudo() -> None:
    """Where sudo asks for a password pyinfra would read one from stdin, which has none, or another one's."""
    util: Any = importlib.import_module("pyinfra.connectors.util")
    util.SUDO_PASSWORD_REQUIRED_LINES = ()  # by which it notices that


def _interrupted(shared: Context | None, signal_number: int, frame: object) -> None:
    """End with a status of its own after Ctrl-C; pyinfra would end with 0 and print to stdout. Tasks continue."""
    interrupt_all()
    say("Interrupted", err=True)
    for upid in shared.hypervisor.under_way if shared else ():
        say(f"task {upid} goes on; follow it with: nixherd vm log --follow {upid}", err=True)
    sys.exit(128 + signal_number)


@contextmanager
def _truthful_end(state: State, shared: Context | None, *, is_fact: bool, is_json: bool) -> Iterator[None]:
    """The status that `exits` has for what happened, and an error meant for the operator as its own words.

    pyinfra forgets failures with --no-wait, and those of `fact`, which it only logs; and a run that ends because no
    host is left has no JSON document.
    """
    errors = _ErrorCount()
    failures = shared.run.failures if shared else {}
    logger.addHandler(errors)
    try:
        yield
    except SystemExit as end:
        failed = state.initialised and any(results.error_ops for results in state.results.values())
        if end.code in (None, 0) and not failures and (failed or (is_fact and errors.count)):
            raise SystemExit(int(Exit.FAILED)) from None
        if end.code in (None, 0, 1) and (failures or end.code):
            raise SystemExit(int(_status(state, failures))) from None
        raise
    except click.ClickException as wrapped:
        if is_json and state.initialised and state.current_stage is StateStage.Execute:
            importlib.import_module("pyinfra_cli.prints").print_run_json(state, dry=False)
        cause = getattr(wrapped, "exception", None)
        if isinstance(cause, FleetError) or (cause is not None and not isinstance(cause, PyinfraError)):
            failure = worded(cause, "the whole run")
            say_error(failure)
            raise SystemExit(int(_status_after(failure, state, shared))) from None
        if isinstance(cause, PyinfraError):
            # "No hosts remaining!" would be said to come from the line of ours that failed the last one
            wrapped.traceback = None  # type: ignore[attr-defined]
            wrapped.exit_code = int(_status(state, failures))  # type: ignore[misc]
        raise
    finally:
        logger.removeHandler(errors)


def _status_after(error: FleetError, state: State, shared: Context | None) -> Exit:
    """Of a run that ended for all: of hosts on which anything was begun it is not known what became of them."""
    is_deployment = shared is not None and isinstance(shared.run.journal, Journal)
    if is_deployment and state.initialised and state.current_stage is StateStage.Execute:
        return Exit.UNKNOWN
    return exit_of(error, changed=bool(shared and shared.run.touched))


def _status(state: State, failures: Mapping[str, Exit]) -> Exit:
    """The common status of the hosts of the run; a host of which nothing was noted but that failed has just failed."""
    if not state.initialised:
        return Exit.FAILED
    selected = [host for host in state.inventory if state.is_host_in_limit(host)]
    working = state.activated_hosts - state.failed_hosts
    known = {host: Exit.DONE if host in working else Exit.FAILED for host in selected}
    return worst(failures.get(str(host.data.get("host_id")), exit) for host, exit in known.items()) or Exit.FAILED


class _ErrorCount(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.count = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.count += 1


def _check_ad_hoc(words: Sequence[str]) -> None:
    """Refuse what pyinfra would answer with a traceback: arguments that an ad-hoc operation or fact does not take."""
    commands: Any = importlib.import_module("pyinfra_cli.commands")
    if words[:1] == ("fact",):
        for fact, args, kwargs in commands.get_facts_and_args(words[1:]):
            if not (inspect.isclass(fact) and issubclass(fact, FactBase)):
                raise Usage(f"{' '.join(words)}: that is not a fact; name a class, as in facts.nixos.CurrentSystem")
            _check_arguments(fact.name, fact().command, args, kwargs)
    elif words and "." in words[0] and not all(word.endswith(".py") for word in words):
        operation, (args, kwargs) = commands.get_func_and_args(words)
        if not hasattr(operation, "_inner"):
            raise Usage(f"{words[0]}: that is not an operation; name a function, as in operations.nixos.switch")
        _check_arguments(words[0], operation, args, kwargs)


def _check_arguments(name: str, function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    if not callable(function):
        return
    signature = inspect.signature(function)
    arguments = {key: value for key, value in kwargs.items() if not key.startswith("_")}
    try:
        signature.bind(*args, **arguments)
    except TypeError as error:
        takes = ", ".join(signature.parameters) or "no arguments"
        raise Usage(f"{name}: {error}; it takes {takes}") from None


_ESCAPE = "\x1b"


def lead_through(context: click.Context) -> None:
    """Let what pyinfra says until the context's end be said as we say things."""
    mark = f"<{secrets.token_hex(16)}>"
    style, unstyle, echo = click.style, click.unstyle, click.echo  # noqa: TID251
    terminal.say_any_character()
    context.call_on_close(terminal.let_go)  # after all that is said while it ends
    _install(partial(_style, style, mark), partial(_unstyle, unstyle, mark), partial(_echo, mark))
    logger.addFilter(_continue)
    context.call_on_close(partial(logger.removeFilter, _continue))
    context.call_on_close(partial(_install, style, unstyle, echo))


def _continue(record: logging.LogRecord) -> bool:
    """Mark the further lines of what is said, which may be a machine's: none looks like one that we say."""
    if isinstance(record.msg, str):
        record.msg = record.msg.replace("\n", "\n    | ")
    return True


def _install(style: Callable[..., str], unstyle: Callable[[str], str], echo: Callable[..., None]) -> None:
    click.style, click.unstyle, click.echo = style, unstyle, echo  # type: ignore[assignment]  # noqa: TID251
    click.exceptions.echo = echo  # type: ignore[attr-defined]
    output: Any = importlib.import_module("pyinfra.api.output")
    output.set_formatter(style)
    output.set_echo(echo)


def _style(style: Callable[..., str], mark: str, text: Any, *how: Any, **more: Any) -> str:
    # what is styled twice has the mark in it already; an escape that somebody else wrote is shown
    return style(_shown(text, mark, mark), *how, **more).replace(_ESCAPE, mark)


def _unstyle(unstyle: Callable[[str], str], mark: str, text: str) -> str:
    return unstyle(text.replace(mark, _ESCAPE))


def _echo(mark: str, message: Any = None, file: Any = None, nl: bool = True, err: bool = False, **_: Any) -> None:
    if file is not None:
        file.write(_shown("" if message is None else message, mark, "") + ("\n" if nl else ""))
        return
    terminal.put(_shown("" if message is None else message, mark, _ESCAPE), err=err, nl=nl)


def _shown(text: Any, mark: str, escape: str) -> str:
    words = text.decode(errors="backslashreplace") if isinstance(text, bytes) else str(text)
    return escape.join(map(visible, words.split(mark)))
