"""pyinfra's output leaves through our edge as well: its own colours stay, what machines say in it is shown.

pyinfra styles and writes with click, whose two functions are replaced for one invocation. A style begins, until it is
written, with a mark instead of an escape character: a word that no machine can know.
"""

import importlib
import logging
import secrets
from collections.abc import Callable
from functools import partial
from typing import Any

import click
from pyinfra import logger

from nixherd import terminal
from nixherd.display import visible

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
