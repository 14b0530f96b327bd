"""Every option that takes a number, of every command: what is none ends in one line, before anything is looked at."""

from collections.abc import Iterator

import click
import pytest

from nixherd.cli.main import cli, run
from nixherd.cli.parameters import Text

NUMBERS = (Text, click.IntRange, click.types.IntParamType, click.types.FloatParamType)


def options(command: click.Command, *words: str) -> Iterator[tuple[tuple[str, ...], str]]:
    """The options of a command, and of all below it, that take a number."""
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from options(below, *words, name)
    for each in command.params:
        if isinstance(each, click.Option) and isinstance(each.type, NUMBERS) and not each.count:
            yield words, each.opts[0]


FOUND = sorted(set(options(cli)))


def test_they_are_found_and_each_has_ends() -> None:
    assert {option for _, option in FOUND} >= {"--deadline", "--boot-deadline", "--timeout", "--soak", "--newer-than"}


@pytest.mark.parametrize("given", ["nan", "inf", "1e300", "9" * 400, "9" * 5000, "-1", "x", ""], ids=lambda it: it[:9])
def test_what_is_no_number_is_one_line(given: str, capfd: pytest.CaptureFixture[str]) -> None:
    for words, option in FOUND:
        assert run([*words, option, given]) == 2
        out, err = capfd.readouterr()
        assert len(err.splitlines()) == 1, err
        assert option in err
        assert out == ""
