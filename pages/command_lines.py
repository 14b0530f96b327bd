"""The `nixherd …` command lines of the pages, parsed by click as `nixherd` would, and not run."""

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import click

from nixherd.cli.machines import WithCommand
from pages.markdown import Page

LANGUAGES = ("", "console", "sh", "bash", "text")
"""of the blocks that have command lines; those of a console stand behind `$ `"""
_ENDS = set("();<>|&")
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=.*")
_HEREDOC = re.compile(r"<<-?\s*'?(\w+)'?")
# What runs the words behind it: how many of its own come first.
_RUNNERS = {"sudo": 1, "time": 1, "uvx": 3, "exec": 1}


@dataclass(frozen=True)
class CommandLine:
    """One command of a page: `words` follow `nixherd`."""

    page: str
    line: int
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.page}:{self.line}: nixherd {shlex.join(self.words)}"


def command_lines(page: Page) -> Iterator[CommandLine]:
    """Find every `nixherd …` in the page's blocks of code, one for each of `a && b | c`."""
    for block in page.blocks:
        language = block.info.split()[0] if block.info.split() else ""
        if language in LANGUAGES:
            for line, text in _logical(block.text, is_console=language == "console"):
                yield from (CommandLine(page.name, block.line + line, words) for words in _nixherd(text))


def problem(cli: click.Command, words: Sequence[str]) -> str:
    """Return why click would not take these words as arguments and options; nothing where it would.

    Values are judged where that needs no file, environment or fleet: choices and numbers.
    """
    rest, command, context = list(words), cli, click.Context(cli, info_name="nixherd")
    try:
        while True:
            rest = _parse(command, context, rest)
            if not isinstance(command, click.Group):
                if rest:
                    raise click.UsageError(f"unexpected: {shlex.join(rest)}")
                return ""
            if not rest:
                return ""  # shows its help
            name, child, rest = command.resolve_command(context, rest)
            assert child is not None
            command, context = child, click.Context(child, parent=context, info_name=name)
    except click.ClickException as error:
        return error.format_message()


def _parse(command: click.Command, context: click.Context, words: list[str]) -> list[str]:
    """Return the words that are left; UsageError for options that do not exist, or arguments that are missing."""
    if isinstance(command, WithCommand) and "--" in words:
        words = words[: words.index("--")]
    if "--help" in words or "-h" in words:
        return []
    values, rest, _ = command.make_parser(context).parse_args(words)
    for parameter in command.get_params(context):
        value = values.get(parameter.name or "")
        is_missing = not isinstance(value, (str, bool, int, list, tuple)) or value in ((), [])
        if parameter.required and is_missing:
            raise click.MissingParameter(ctx=context, param=parameter)
        if not is_missing and isinstance(parameter.type, (click.Choice, click.types.IntParamType)):
            parameter.type_cast_value(context, value)
    return rest


def _logical(text: str, *, is_console: bool) -> Iterator[tuple[int, str]]:
    """Join continued lines; skip documents that a shell reads from the lines below, and a console's output."""
    until, begun, first = "", "", 0
    for number, line in enumerate(text.splitlines()):
        if until:
            until = "" if line.strip() == until else until
            continue
        if not begun and is_console and not line.startswith("$ "):
            continue
        first = first if begun else number
        begun += line.removeprefix("$ ") if is_console and not begun else line
        if begun.endswith("\\"):
            begun = begun[:-1]
            continue
        if match := _HEREDOC.search(begun):
            until = match[1]
        yield first, begun
        begun = ""


def _nixherd(text: str) -> Iterator[tuple[str, ...]]:
    """The words behind `nixherd` in each command of a line of the shell."""
    lexer = shlex.shlex(text, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    try:
        words = list(lexer)
    except ValueError:  # prose, such as an apostrophe
        return
    command: list[str] = []
    skips = False
    for word in [*words, ";"]:
        if set(word) <= _ENDS and word:
            if set(word) & set("<>") and command:
                skips = True  # what follows is a file's name
                continue
            if found := _of_nixherd(command):
                yield found
            command, skips = [], False
        elif skips:
            skips = False
        else:
            command.append(word)


def _of_nixherd(words: Sequence[str]) -> tuple[str, ...] | None:
    rest = list(words)
    while rest and (_ASSIGNMENT.fullmatch(rest[0]) or rest[0] in _RUNNERS):
        del rest[: _RUNNERS.get(rest[0], 1)]
    if rest[:5] == ["python", "-m", "lab", "run", "--"]:
        del rest[:5]
    return tuple(rest[1:]) if rest and rest[0].rpartition("/")[2] == "nixherd" else None
