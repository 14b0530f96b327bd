"""A connection that ends in the middle of a command has told neither its status nor all of its output."""

import io
from types import SimpleNamespace
from typing import Any

import pytest
from pyinfra.connectors.sshuserclient import SSHClient

from nixherd.pyinfra_glue.ssh_client import PinnedClient, Reply
from nixherd.ssh.login_shell import Answer


def reply(lines: list[str], status: int) -> Reply:
    answer = Answer("mark")
    list(answer.output(1, lines))
    channel: Any = SimpleNamespace(recv_exit_status=lambda: status)
    return Reply(channel, answer, lambda answer, status: None)


@pytest.mark.parametrize("lines", [[], ["mark 1 begin /bin/sh:/root", "half of it"]])
def test_a_command_whose_end_nobody_told_has_no_status(lines: list[str]) -> None:
    with pytest.raises(OSError, match="before it told its exit status"):
        reply(lines, -1).recv_exit_status()


@pytest.mark.parametrize(("end", "status", "told"), [(["mark 1 end 3"], -1, 3), ([], 137, 137), ([], 0, -1)])
def test_a_status_that_was_told_counts(end: list[str], status: int, told: int) -> None:
    assert reply(["mark 1 begin /bin/sh:/root", *end], status).recv_exit_status() == told


@pytest.mark.parametrize("status", [0, 3, -1])
def test_a_forced_command_tells_its_status_or_nobody_knows_it(monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    class Stream(io.BytesIO):
        channel = SimpleNamespace(recv_exit_status=lambda: status)

    def exec_command(self: Any, words: str, **options: Any) -> tuple[Any, Stream, Stream]:
        return None, Stream(b"building\n"), Stream(b"50%\n")

    monkeypatch.setattr(SSHClient, "exec_command", exec_command)
    if status >= 0:
        assert PinnedClient().say("trigger", 5) == ("building\n", "50%\n", status)
        return
    with pytest.raises(OSError, match="before it told its exit status"):
        PinnedClient().say("trigger", 5)
