"""Help as people read it: whole summaries, examples that work, defaults, and pages about what all commands share."""

import re
import shlex
from pathlib import Path
from unittest.mock import Mock

import click
import pytest

from nixherd.base.errors import Exit
from nixherd.cli.front import Front
from nixherd.cli.help import EXAMPLES, TOPICS
from nixherd.cli.main import cli, run
from nixherd.deploy.report import Outcome
from tests.security.test_output import LEAVES


def shown(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert run([*words]) == 0
    return capsys.readouterr().out


def test_every_command_has_an_example() -> None:
    assert {" ".join(path) for path in LEAVES} == EXAMPLES.keys()


@pytest.mark.parametrize("words", [each for examples in EXAMPLES.values() for each in examples])
def test_examples_can_be_typed(words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each option exists, and each value is one that it takes."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cache.key").touch()
    (tmp_path / "debian.qcow2").touch()
    [path] = [path for path in EXAMPLES if words in EXAMPLES[path]]
    assert words.startswith(path)
    command = LEAVES[tuple(path.split())]
    front = Mock(spec=Front)
    front.standing = lambda name: None
    command.make_context(path, shlex.split(words.removeprefix(path).partition(" >")[0]), obj=front)


@pytest.mark.parametrize("path", EXAMPLES)
def test_a_commands_help(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    """With its examples, and a word about each option."""
    text = shown(capsys, *path.split(), "--help")
    assert all(f"nixherd {words}" in text for words in EXAMPLES[path])
    assert text.count("Examples:") == 1
    options = [each for each in LEAVES[tuple(path.split())].params if isinstance(each, click.Option)]
    assert [each.opts for each in options if not each.help] == []
    assert shown(capsys, "help", *path.split()).splitlines()[1:] == text.splitlines()[1:]


@pytest.mark.parametrize("group", ["", "vm", "secrets", "token"])
def test_a_groups_help_cuts_nothing(group: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys, *group.split(), "--help")
    assert "..." not in re.sub(r"\[ARGS\]\.\.\.|HOST\.\.\.|\[ARGUMENT\]\.\.\.", "", text)
    command: click.Command = cli
    for word in group.split():
        found = cli.get_command(click.Context(cli), word)
        assert found is not None
        command = found
    assert isinstance(command, click.Group)
    one_line = " ".join(text.split())
    for name in command.list_commands(click.Context(command)):
        each = command.get_command(click.Context(command), name)
        assert each is not None
        assert f" {name} {each.get_short_help_str(1000)}" in one_line


def test_defaults_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    text = " ".join(shown(capsys, "vm", "shutdown", "--help").split())
    assert "[default: 180]" in text
    assert '""' not in shown(capsys, "vm", "snapshot", "--help")


def test_the_page_of_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys, "help", "exit-codes")
    for each in Exit:
        assert re.search(rf"^ +{int(each)}  {re.escape(each.meaning)}$", text, re.MULTILINE)
    assert all(str(outcome) in text for outcome in Outcome)


@pytest.mark.parametrize("topic", TOPICS)
def test_topics(topic: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys, "help", topic)
    assert len(text.splitlines()) > 3
    assert max(map(len, text.splitlines())) <= 120
    assert topic in shown(capsys, "help")
    assert topic in shown(capsys, "--help")


def test_what_does_not_exist(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["help", "vm", "nosuch"]) == 2
    assert capsys.readouterr().err.startswith("vm nosuch: neither a command nor one of the topics asking, ")
    assert run(["help", "deploy", "web01"]) == 2
