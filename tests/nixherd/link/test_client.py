"""A connection that ends in the middle of a command has told neither its status nor all of its output."""

import io
import threading
from types import SimpleNamespace
from typing import Any

import pytest
from paramiko import Message, SSHClient
from paramiko.agent import AgentKey
from paramiko.auth_handler import AuthHandler

from nixherd.base.process import Completed
from nixherd.link.client import Keys, PinnedClient, Reply
from nixherd.ssh.destination import Identities
from nixherd.ssh.login_shell import Answer


def ended(status: int) -> SimpleNamespace:
    return SimpleNamespace(recv_exit_status=lambda: status, status_event=SimpleNamespace(wait=lambda limit: True))


def reply(lines: list[str], status: int) -> Reply:
    answer = Answer("mark")
    list(answer.output(1, lines))
    channel: Any = ended(status)
    return Reply(channel, answer, lambda answer, status: None)


@pytest.mark.parametrize("lines", [[], ["mark 1 begin /bin/sh:/root", "half of it"]])
def test_a_command_whose_end_nobody_told_has_no_status(lines: list[str]) -> None:
    with pytest.raises(OSError, match="before it told its exit status"):
        reply(lines, -1).recv_exit_status()


@pytest.mark.parametrize(("end", "status", "told"), [(["mark 1 end 3"], -1, 3), ([], 137, 137), ([], 0, -1)])
def test_a_status_that_was_told_counts(end: list[str], status: int, told: int) -> None:
    assert reply(["mark 1 begin /bin/sh:/root", *end], status).recv_exit_status() == told


def test_a_command_that_goes_on_after_its_output_is_given_up() -> None:
    channel: Any = SimpleNamespace(status_event=threading.Event())
    with pytest.raises(OSError, match="went on, before it told its exit status"):
        Reply(channel, Answer("mark"), lambda answer, status: None, limit=0.1).recv_exit_status()


def test_a_security_keys_key_in_an_agent_is_offered_like_any_other() -> None:
    """paramiko has no class for it, and asks such a key for what it has not."""
    blob = Message()
    for part in (b"sk-ssh-ed25519@openssh.com", b"\1" * 32, b"ssh:"):
        blob.add_string(part)
    agent: Any = SimpleNamespace(get_keys=lambda: [AgentKey(agent, blob.asbytes())])
    [key] = Keys("deploy", Identities())._offered(agent)
    kind, offered = AuthHandler._get_key_type_and_bits(None, key)  # type: ignore[attr-defined]
    assert (kind, offered) == ("sk-ssh-ed25519@openssh.com", key)


@pytest.mark.parametrize("status", [0, 3, -1])
def test_a_forced_command_tells_its_status_or_nobody_knows_it(monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    channel = ended(status)
    channel.recv, channel.recv_stderr = io.BytesIO(b"building\n").read, io.BytesIO(b"50%\n").read
    monkeypatch.setattr(SSHClient, "exec_command", lambda *words, **options: (None, SimpleNamespace(channel=channel)))
    if status >= 0:
        assert PinnedClient().say("trigger", 5) == Completed("building\n", "50%\n", status)
        return
    with pytest.raises(OSError, match="before it told its exit status"):
        PinnedClient().say("trigger", 5)
