"""Guest agent calls: the API's limits, encodings and errors; the answers come from the backend.

Content and output pass to and from the backend as text with one character per byte (latin-1). `exec` takes `command` (a
list) and `input-data` (text or None); `exec-status` returns `exited`, `exitcode` or `signal`, `out-data` and
`err-data`; `file-read` returns the whole file as `content`, which is truncated here; `file-write` takes `file` and
`content`.
"""

import base64
import binascii
import time
from collections.abc import Callable, Mapping
from typing import Any

from lab.api.errors import ApiError
from lab.api.routes import Call, route
from lab.api.state import Config, Vm
from lab.backend import AgentAbsent, AgentError

_AGENT = "/nodes/{node}/qemu/{vmid}/agent"
PING_SECONDS = 3.0
COMMAND_SECONDS = 5.0
READ_LIMIT = 16 << 20

_READING = (
    *(
        "get-fsinfo",
        "get-host-name",
        "get-memory-block-info",
        "get-memory-blocks",
        "get-osinfo",
        "get-time",
        "get-timezone",
    ),
    *("get-users", "get-vcpus", "info", "network-get-interfaces"),
)
_DOING = (
    "fsfreeze-freeze",
    "fsfreeze-status",
    "fsfreeze-thaw",
    "fstrim",
    "ping",
    "shutdown",
    "suspend-disk",
    "suspend-hybrid",
    "suspend-ram",
)


def is_configured(config: Config) -> bool:
    """Return whether the VM's configuration enables the agent."""
    parts = dict(part.partition("=")[::2] for part in str(config.get("agent", "0")).split(","))
    return parts.get("enabled", next(iter(parts))) in ("1", "on", "yes", "true")


def _running_vm(call: Call) -> Vm:
    vm = call.emulator.state.vm(call.vmid)
    if not is_configured(vm.config):
        raise ApiError("No QEMU guest agent configured")
    if not vm.running:
        raise ApiError(f"VM {vm.vmid} is not running")
    return vm


def ask(call: Call, command: str, params: Mapping[str, Any] | None = None) -> Any:
    """Return the agent's answer to a command. Raises ApiError after the usual delay when nothing answers the ping."""
    vm = _running_vm(call)
    deadline = time.monotonic() + PING_SECONDS
    try:
        while True:  # the ping stays in the port's buffer, so an agent that starts during the wait answers it
            try:
                if call.emulator.faults.agent_silent(vm.vmid):
                    raise AgentAbsent
                return call.emulator.backend.agent(vm.vmid, command, params or {})
            except AgentAbsent:
                if time.monotonic() >= deadline:
                    raise ApiError("QEMU guest agent is not running") from None
                time.sleep(0.05)
    except AgentError as error:
        text = str(error)
        raise ApiError(text if text.startswith("Guest agent command failed") else f"Agent error: {text}") from None


def _no_answer(call: Call, command: str) -> ApiError:
    protocol = "qga" if call.emulator.state.version >= 9 else "qmp"
    return ApiError(f"VM {call.vmid} {protocol} command 'guest-{command}' failed - got timeout")


def _simple(command: str) -> Callable[[Call], Any]:
    def handler(call: Call) -> Any:
        return {"result": ask(call, command)}

    return handler


for _command in _READING:
    route("GET", f"{_AGENT}/{_command}")(_simple(_command))
for _command in _DOING:
    route("POST", f"{_AGENT}/{_command}")(_simple(_command))


@route("POST", _AGENT)
def generic(call: Call) -> Any:
    return {"result": ask(call, call.params["command"])}


@route("POST", f"{_AGENT}/set-user-password")
def set_user_password(call: Call) -> Any:
    credentials: dict[str, Any] = {
        name: call.params[name] for name in ("username", "password", "crypted") if name in call.params
    }
    return {"result": ask(call, "set-user-password", credentials) or {}}


def _latin(text: str, what: str) -> str:
    """Return the text if Perl can encode it with one byte per character; raises ApiError otherwise."""
    if any(ord(character) > 0xFF for character in text):
        raise ApiError(f"Wide character in subroutine entry at /usr/share/perl5/PVE/{what}")
    return text


@route("POST", f"{_AGENT}/exec")
def execute(call: Call) -> Any:
    """Start a command. Arguments beyond latin-1 never reach the guest: the call times out."""
    argv, data = list(call.params["command"]), call.params.get("input-data")
    if any(ord(character) > 0xFF for argument in argv for character in argument):
        _running_vm(call)
        time.sleep(COMMAND_SECONDS)
        raise _no_answer(call, "exec")
    stdin = None if data is None else _latin(data, "QemuServer/Agent.pm line 179.")
    return {"pid": ask(call, "exec", {"command": argv, "input-data": stdin})["pid"]}


@route("GET", f"{_AGENT}/exec-status")
def exec_status(call: Call) -> Any:
    """Return whether a command has ended and, if so, its output with one character per byte."""
    status = ask(call, "exec-status", {"pid": int(call.params["pid"])})
    if not status.get("exited"):
        return {"exited": 0}
    answer: dict[str, Any] = {
        "exited": 1,
        **{key: status[key] for key in ("exitcode", "signal") if status.get(key) is not None},
    }
    for stream in ("out", "err"):
        data = status.get(f"{stream}-data")
        if data:
            answer[f"{stream}-data"] = data
            answer[f"{stream}-truncated"] = int(bool(status.get(f"{stream}-truncated")))
    return answer


@route("GET", f"{_AGENT}/file-read")
def file_read(call: Call) -> Any:
    content = str(ask(call, "file-read", {"file": call.params["file"]})["content"])
    offset, count = int(call.params.get("offset", 0)), min(int(call.params.get("count", READ_LIMIT)), READ_LIMIT)
    part = content[offset : offset + count]
    shown = part if call.params.get("decode", 1) else base64.b64encode(part.encode("latin-1")).decode()
    truncated = {"truncated": 1} if offset + count < len(content) else {}
    return {"content": shown, "bytes-read": len(part), **truncated}


@route("POST", f"{_AGENT}/file-write")
def file_write(call: Call) -> Any:
    text = call.params["content"]
    if call.params.get("encode", 1):
        content = _latin(text, "API2/Qemu/Agent.pm line 624.")
    else:
        _running_vm(call)
        try:
            content = base64.b64decode(text, validate=True).decode("latin-1")
        except binascii.Error:
            raise ApiError("Agent error: Base64 data contains invalid characters") from None
    ask(call, "file-write", {"file": call.params["file"], "content": content})
