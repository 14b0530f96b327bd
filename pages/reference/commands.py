"""Every command with its options, defaults and examples, from click."""

import inspect
from collections.abc import Callable, Iterator

import click

from nixherd.base.errors import Exit
from nixherd.cli.help import EXAMPLES
from nixherd.cli.main import cli
from pages.reference.prose import NOTE, code, escaped, joined, table

LARGE = 6
"""a group of more commands has a page"""
_SETTINGS = {"show_default": True, "terminal_width": 100}


def commands() -> Iterator[tuple[str, click.Command, click.Context]]:
    """Walk through all commands and groups, by their words without `nixherd`."""
    root = click.Context(cli, info_name="nixherd", **_SETTINGS)  # type: ignore[arg-type]
    yield from _below(cli, root, "")


def _below(
    group: click.Group, context: click.Context, prefix: str
) -> Iterator[tuple[str, click.Command, click.Context]]:
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command is None or command.hidden:
            continue
        child = click.Context(command, parent=context, info_name=name, **_SETTINGS)  # type: ignore[arg-type]
        yield f"{prefix}{name}", command, child
        if isinstance(command, click.Group):
            yield from _below(command, child, f"{prefix}{name} ")


def main_page() -> str:
    """Return the page of all commands but those of large groups."""
    every = list(commands())
    large = _large()
    rows = [(f"[`nixherd {words}`]({_place(words, large)})", escaped(_first(command))) for words, command, _ in every]
    root = click.Context(cli, info_name="nixherd", **_SETTINGS)  # type: ignore[arg-type]
    return joined(
        [
            "# Commands", NOTE,
            "Each takes `--help`; options of `nixherd` itself stand before the command:", _options(cli, root),
            table(("command", ""), rows),
            "## Exit codes", table(("status", ""), [(str(int(each)), escaped(each.meaning)) for each in Exit]),
            *(_section(*each) for each in every if each[0].split()[0] not in large),
        ]
    )  # fmt: skip


def group_pages() -> dict[str, Callable[[], str]]:
    """Return the makers of the pages of large groups, by the group."""

    def maker(group: str) -> Callable[[], str]:
        def make() -> str:
            every = [each for each in commands() if each[0].split()[0] == group]
            _, command, _ = every[0]
            note = "What all commands share, such as exit codes, is with [the others](commands.md)."
            title = f"# nixherd {group}"
            return joined([title, NOTE, _help(command), note, *(_section(*each) for each in every[1:])])

        return make

    return {group: maker(group) for group in sorted(_large())}


def _large() -> set[str]:
    groups = [words.split()[0] for words, _, _ in commands() if " " in words]
    return {group for group in groups if groups.count(group) > LARGE}


def _place(words: str, large: set[str]) -> str:
    group, _, rest = words.partition(" ")
    anchor = f"#nixherd-{words.replace(' ', '-')}"
    if group not in large:
        return anchor
    return f"{group}.md{anchor}" if rest else f"{group}.md"


def _section(words: str, command: click.Command, context: click.Context) -> str:
    usage = " ".join(["nixherd", words, *command.collect_usage_pieces(context)])
    examples = "\n".join(f"nixherd {each}" for each in EXAMPLES.get(words, ()))
    return joined(
        [
            f"## nixherd {words}",
            _help(command),
            "" if isinstance(command, click.Group) else f"Usage: {code(usage)}",
            _options(command, context),
            f"```sh\n{examples}\n```" if examples else "",
        ]
    )


def _first(command: click.Command) -> str:
    return command.get_short_help_str(limit=1000)


def _help(command: click.Command) -> str:
    """Return the help, without click's marks; a paragraph that is not to be wrapped becomes a block."""
    paragraphs = inspect.cleandoc(command.help or "").split("\f")[0].split("\n\n")
    return joined(
        "```text\n" + paragraph.removeprefix("\b\n") + "\n```" if paragraph.startswith("\b") else escaped(paragraph)
        for paragraph in paragraphs
    )


def _options(command: click.Command, context: click.Context) -> str:
    rows = []
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record and "--help" not in parameter.opts and "--version" not in parameter.opts:
            rows.append((code(record[0]), escaped(" ".join(record[1].split()))))
    return table(("option", ""), rows)
