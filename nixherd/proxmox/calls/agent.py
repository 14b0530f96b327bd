"""The guest's agent: its answers, its files, and commands run by it."""

import base64
import shlex
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from nixherd.errors import DeadlineExceeded, Usage
from nixherd.fleet.models import GuestType
from nixherd.proxmox import wire
from nixherd.proxmox.calls.base import Calls, guest_path
from nixherd.proxmox.models import ExecResult, Interface

AGENT_CALLS = 2  # in flight per node: each may block one of pvedaemon's three workers for seconds


class Agent(Calls):
    def __init__(self) -> None:
        self._agent_slots: dict[str, threading.Semaphore] = {}
        self._agent_lock = threading.Lock()

    @contextmanager
    def _agent(self, node: str) -> Iterator[None]:
        with self._agent_lock:
            slots = self._agent_slots.setdefault(node, threading.Semaphore(AGENT_CALLS))
        with slots:
            yield

    def agent_ping(self, node: str, vmid: int) -> None:
        """Return when the agent answers, else raise AgentUnavailable after some 3 s. A changing call."""
        with self._agent(node):
            self._post("nodes", node, "qemu", vmid, "agent", "ping")

    def agent_info(self, node: str, vmid: int) -> dict[str, Any]:
        """The agent's version and commands; AgentUnavailable when none answers."""
        with self._agent(node):
            return dict(self._get("nodes", node, "qemu", vmid, "agent", "info")["result"])

    def agent_interfaces(self, node: str, vmid: int) -> tuple[Interface, ...]:
        """The guest's network interfaces, in its own order: loopback and docker's may come first."""
        with self._agent(node):
            data = self._get("nodes", node, "qemu", vmid, "agent", "network-get-interfaces")
        return tuple(Interface.of(row) for row in data["result"])

    def container_interfaces(self, node: str, vmid: int) -> tuple[Interface, ...]:
        """A running container's network interfaces, as the node sees them."""
        rows = self._get(*guest_path(node, vmid, GuestType.LXC), "interfaces") or ()
        return tuple(Interface.of_container(row) for row in rows)

    def agent_read(self, node: str, vmid: int, path: str) -> str:
        """A file of the guest, as text. ApiError when there is none."""
        with self._agent(node):
            data = self._get("nodes", node, "qemu", vmid, "agent", "file-read", file=path)
        return wire.guest_text(str(data["content"]))

    def agent_exec(
        self, node: str, vmid: int, argv: Sequence[str], *, input: str | None = None, timeout: float = 300
    ) -> ExecResult:
        """Run a command in the guest as root and wait for its end, `timeout` seconds at most; `input` is its stdin.

        Its result is given out once; when that answer is lost, AgentUnavailable is raised: run only what may
        run again. DeadlineExceeded when it does not end.
        """
        with self._agent(node):
            given = {} if input is None else {"input-data": input}
            pid = self._post("nodes", node, "qemu", vmid, "agent", "exec", command=_plain(argv), **given)["pid"]
        began, pause = time.monotonic(), 0.1
        while True:
            with self._agent(node):
                data = self._get("nodes", node, "qemu", vmid, "agent", "exec-status", pid=pid)
            if int(data["exited"]):
                out, err = (wire.guest_text(str(data.get(key, ""))) for key in ("out-data", "err-data"))
                code, signal = (None if data.get(key) is None else int(data[key]) for key in ("exitcode", "signal"))
                return ExecResult(code, out, err, signal)
            if time.monotonic() - began + pause > timeout:
                raise DeadlineExceeded(f"vm {vmid}: `{shlex.join(argv)}` in the guest: not done within {timeout:.0f} s")
            time.sleep(pause)
            pause = min(1.0, pause * 1.5)


def _plain(argv: Sequence[str]) -> list[str]:
    """The command, or a shell that decodes it: the agent hangs on characters outside latin-1."""
    if all(word.isascii() for word in argv):
        return list(argv)
    try:
        script = base64.b64encode(shlex.join(argv).encode()).decode()
    except UnicodeEncodeError:
        raise Usage(f"{shlex.join(argv)}: half a character cannot be sent to a guest; nothing was run") from None
    return ["/bin/sh", "-c", f'script=$(echo {script} | base64 -d) || exit 127; eval "$script"']
