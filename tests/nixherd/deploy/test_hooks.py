"""The operator's hooks: whose they may be, what they are told, and what one that fails comes to."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from nixherd.base.errors import NotBegun, Usage
from nixherd.deploy import hooks as module
from nixherd.deploy.hooks import Hooks
from tests.nixherd.deploy.scripted import Scripted, rolled_out


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.delenv("NIXHERD_CONFIG", raising=False)
    (tmp_path / "nixherd").mkdir()
    return tmp_path / "nixherd" / "config.toml"


def configured(place: Path, text: str, mode: int = 0o600) -> Hooks:
    place.write_text(f"[hooks]\n{text}\n")
    place.chmod(mode)
    return Hooks.of_operator()


def test_without_a_configuration_there_are_none(place: Path) -> None:
    assert [*Hooks.of_operator().all] == []
    assert Hooks.of_operator().tell("on_failure", {}) == []


def test_one_that_was_named_and_is_not_there_is_said(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIXHERD_CONFIG", str(place))
    with pytest.raises(Usage, match="no such file; NIXHERD_CONFIG names"):
        Hooks.of_operator()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('on_succes = [["true"]]', "hooks.on_succes is not known"),
        ('on_success = "true"', "is not a list"),
        ("on_success = [[]]", "is neither"),
        ("on_success = [[1]]", "is neither"),
        ('on_success = ["http://example.org/x"]', "begins with https://"),
        ('on_success = ["file:///etc/passwd"]', "begins with https://"),
        ('on_success = ["https://"]', "begins with https://"),
        ('on_success = ["https://a:b:c/"]', "that is not an address|begins with https"),
        ("on_success = [", "line"),
        ("[others]", "others is not known"),
    ],
)
def test_what_is_wrong_is_one_line(place: Path, text: str, why: str) -> None:
    with pytest.raises(Usage, match=why) as error:
        configured(place, text)
    assert str(place) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "mode", "why"),
    [
        ('on_success = [["true"]]', 0o666, "can be written by everybody"),
        ('on_success = ["https://example.org/secret"]', 0o644, "others may read it"),
        ('on_success = [["true"]]', 0o644, None),
    ],
)
def test_it_is_the_operators_alone(place: Path, text: str, mode: int, why: str | None) -> None:
    if why is None:
        assert [*configured(place, text, mode).all] == [("true",)]
        return
    with pytest.raises(Usage, match=why) as error:
        configured(place, text, mode)
    assert "secret" not in str(error.value).replace("is a secret", "")


def test_nobody_else_may_put_another_file_there(place: Path) -> None:
    configured(place, 'on_success = [["true"]]')
    place.parent.chmod(0o777)
    with pytest.raises(Usage, match="can be written by everybody"):
        Hooks.of_operator()


@pytest.mark.process
def test_a_program_is_given_the_document_and_no_shell(place: Path, tmp_path: Path) -> None:
    told = tmp_path / "told"
    script = tmp_path / "hook"
    script.write_text(f'#!/bin/sh\ncat > {told}\necho "$1" >> {told}.words\n')
    script.chmod(0o755)
    hooks = configured(place, f'on_success = [["{script}", "$(id); a  b"]]')
    assert hooks.tell("on_success", {"run": "1", "hosts": [{"host": "a\x1b"}]}) == []
    document = json.loads(told.read_text())
    assert (document["event"], document["run"]) == ("on_success", "1")
    assert "\x1b" not in document["hosts"][0]["host"]
    assert Path(f"{told}.words").read_text() == "$(id); a  b\n"
    assert hooks.tell("on_failure", {}) == []
    assert json.loads(told.read_text())["event"] == "on_success"


@pytest.mark.process
def test_each_that_fails_is_told_without_its_arguments(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TIMEOUT", 0.5)
    hooks = configured(
        place,
        'on_failure = [["sh", "-c", "echo the pager is off >&2; exit 3", "token"], ["/nowhere/hook", "token"], '
        '["sleep", "60"], ["true"]]',
    )
    assert hooks.tell("on_failure", {}) == [
        "on_failure: sh: status 3: the pager is off",
        "on_failure: /nowhere/hook: it cannot be started: No such file or directory",
        "on_failure: sleep: it did not end within 0.5 s, and was stopped",
    ]


@pytest.fixture
def web() -> Iterator[tuple[str, list[Any]]]:
    taken: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            taken.append((self.path, json.loads(self.rfile.read(int(self.headers["Content-Length"])))))
            self.send_response({"/ok": 200, "/moved": 307}.get(self.path, 500))
            self.send_header("Location", "/elsewhere")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Nothing."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", taken
    server.shutdown()
    server.server_close()


@pytest.mark.process
def test_a_webhook_is_posted_to_and_followed_nowhere(place: Path, web: tuple[str, list[Any]]) -> None:
    address, taken = web
    hooks = configured(place, f'on_success = ["{address}/ok", "{address}/moved", "{address}/secret"]')
    failed = hooks.tell("on_success", {"exit": 0})
    assert failed == [
        "on_success: the webhook at 127.0.0.1: it answers 307",
        "on_success: the webhook at 127.0.0.1: it answers 500",
    ]
    assert [path for path, _ in taken] == ["/ok", "/moved", "/secret"]
    assert taken[0][1] == {"event": "on_success", "exit": 0}
    gone = configured(place, 'on_success = ["http://127.0.0.1:1/secret"]').tell("on_success", {})
    assert gone == ["on_success: the webhook at 127.0.0.1: [Errno 111] Connection refused"]


def test_hosts_are_held_while_a_hook_says_no_and_it_is_asked_once() -> None:
    rollout, host_run, notes = rolled_out(Scripted())
    rollout.hosts[host_run.id] = host_run
    documents: list[Any] = []

    def ask(document: Any) -> str:
        documents.append(document)
        return "before_activate: may-i: status 1: not on a Friday"

    rollout.ask = ask
    for _ in range(2):
        with pytest.raises(NotBegun, match="not on a Friday"), rollout.turn(host_run):
            raise AssertionError("it was begun")
    assert notes.end == ("held", "before_activate: may-i: status 1: not on a Friday")
    [document] = documents
    assert [each["host"] for each in document["hosts"]] == [host_run.id]
    assert rollout.failed == {}, "which is no failure for those that come after"
