"""The guest agent's calls."""

from collections.abc import Mapping
from typing import Any

import pytest

from lab.api import agent
from lab.api.errors import ApiError
from lab.api.states import StatesBackend
from lab.backend import AgentError
from tests.lab.api_node import STATE, Node, state_with

AGENT = "/nodes/prom/qemu/104/agent"


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent, "PING_SECONDS", 0.01)
    monkeypatch.setattr(agent, "COMMAND_SECONDS", 0.01)


def test_calls_say_why_nobody_answers() -> None:
    state = state_with()
    state["vms"] |= {"200": {"status": "running", "config": {}}, "201": {"config": {"agent": "enabled=1"}}}
    node = Node(state)
    for vmid, text in ((200, "No QEMU guest agent configured"), (201, "VM 201 is not running")):
        with pytest.raises(ApiError) as refused:
            node.call("POST", f"/nodes/prom/qemu/{vmid}/agent/ping")
        assert refused.value.message == text
    node.emulator.faults.switch("agent-silent", True, {"vmid": 104})
    with pytest.raises(ApiError, match="QEMU guest agent is not running"):
        node.call("POST", f"{AGENT}/ping")
    node.emulator.faults.switch("agent-silent", False, {})
    assert node.call("POST", f"{AGENT}/ping") == {"result": {}}


def test_a_command_is_reaped_once() -> None:
    node = Node()
    pid = node.call("POST", f"{AGENT}/exec", {"command": ["/bin/true"]})["pid"]
    assert node.get(f"{AGENT}/exec-status", pid=pid) == {"exited": 1, "exitcode": 0}
    with pytest.raises(ApiError, match="Agent error: PID ld does not exist"):
        node.get(f"{AGENT}/exec-status", pid=pid)


def test_characters_beyond_latin_1_never_arrive() -> None:
    node = Node()
    with pytest.raises(ApiError, match="qga command 'guest-exec' failed - got timeout"):
        node.call("POST", f"{AGENT}/exec", {"command": ["/bin/echo", "“"]})
    with pytest.raises(ApiError, match="Wide character"):
        node.call("POST", f"{AGENT}/file-write", {"file": "/tmp/a", "content": "“"})


def test_files_are_bytes() -> None:
    node = Node()
    node.call("POST", f"{AGENT}/file-write", {"file": "/tmp/a", "content": "aMOp/w==", "encode": 0})
    assert node.get(f"{AGENT}/file-read", file="/tmp/a") == {"content": "hÃ©ÿ", "bytes-read": 4}
    cut = node.get(f"{AGENT}/file-read", file="/tmp/a", offset=1, count=2, decode=0)
    assert cut == {"content": "w6k=", "bytes-read": 2, "truncated": 1}


class Talking(StatesBackend):
    """Answers a command as a machine's agent might."""

    def __init__(self, answer: Any) -> None:
        super().__init__(STATE)
        self.answer = answer

    def agent(self, vmid: int, command: str, params: Mapping[str, Any]) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def test_output_and_errors_of_a_machine_are_passed_on() -> None:
    answer = {"exited": True, "signal": 9, "out-data": "Ã¼", "err-data": ""}
    found = Node(backend=Talking(answer)).get(f"{AGENT}/exec-status", pid=1)
    assert found == {"exited": 1, "signal": 9, "out-data": "Ã¼", "out-truncated": 0}
    with pytest.raises(ApiError, match="Agent error: no such user"):
        Node(backend=Talking(AgentError("no such user"))).call("POST", f"{AGENT}/ping")
