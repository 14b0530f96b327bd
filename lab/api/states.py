"""A backend without machines: power and agents are states, described by a start state's `agent` and `guest`."""

import copy
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lab.backend import AgentAbsent, AgentError

# Agent commands that return a value of the guest, and the name of that value.
_FACTS = {
    "info": "info",
    "get-osinfo": "osinfo",
    "network-get-interfaces": "interfaces",
    "get-fsinfo": "fsinfo",
    "get-vcpus": "vcpus",
    "get-timezone": "timezone",
    "get-users": "logged-in",
    "fsfreeze-status": "fsfreeze",
}
_FOLDERS = {
    "",
    "/etc",
    "/home",
    "/opt",
    "/root",
    "/run",
    "/srv",
    "/tmp",
    "/usr",
    "/usr/local",
    "/var",
    "/var/lib",
    "/var/log",
    "/var/tmp",
}


@dataclass
class Process:
    """A command that the agent runs."""

    ends: float
    result: dict[str, Any]


@dataclass
class Guest:
    """One guest's power and agent state."""

    running: bool
    agent: bool
    facts: dict[str, Any]
    processes: dict[int, Process] = field(default_factory=dict)
    next_pid: int = 621


def _text(content: Any) -> str:
    """Return content from a start state: text, or {"repeat": text, "times": n}."""
    return str(content["repeat"]) * int(content["times"]) if isinstance(content, Mapping) else str(content)


class StatesBackend:
    """Implements `lab.backend.Backend` over the `vms` of a start state."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._document = document
        self._mutex = threading.RLock()
        self._off: Callable[[int], None] = lambda vmid: None
        self._guests: dict[int, Guest] = {}
        self.reset_all()

    def load(self, document: Mapping[str, Any]) -> None:
        """Load the guests from another start state."""
        self._document = document
        self.reset_all()

    def reset_all(self) -> None:
        with self._mutex:
            self._guests = {
                int(vmid): Guest(
                    running=vm.get("status") == "running",
                    agent=vm.get("agent") == "running",
                    facts=copy.deepcopy(vm.get("guest", {})),
                )
                for vmid, vm in self._document.get("vms", {}).items()
            }

    def _guest(self, vmid: int) -> Guest:
        with self._mutex:
            return self._guests.setdefault(vmid, Guest(running=False, agent=False, facts={}))

    def set_agent(self, vmid: int, running: bool) -> None:
        """Make the guest's agent answer or stop answering."""
        self._guest(vmid).agent = running

    def boot_guest(self, vmid: int, facts: Mapping[str, Any]) -> None:
        """Mark the guest as booted: its agent answers with the values of `about`."""
        guest = self._guest(vmid)
        guest.facts, guest.agent = copy.deepcopy(dict(facts)), True

    def create_volume(self, volid: str, size: int) -> None:
        """Do nothing: volumes exist only in the emulator's state."""

    def clone_volume(self, source: str, target: str, size: int) -> None:
        """Do nothing, like create_volume."""

    def resize_volume(self, volid: str, size: int) -> None:
        """Do nothing, like create_volume."""

    def rename_volume(self, source: str, target: str) -> None:
        """Do nothing, like create_volume."""

    def delete_volume(self, volid: str) -> None:
        """Do nothing, like create_volume."""

    def start(self, vmid: int, config: Mapping[str, Any], cloudinit: Mapping[str, str] | None) -> None:
        with self._mutex:
            guest = self._guest(vmid)
            guest.running, guest.agent, guest.processes = True, False, {}
            facts = self._document.get("boots")  # the guest of every machine that is not in the start state
            if facts and str(vmid) not in self._document.get("vms", {}):
                self.boot_guest(vmid, facts)

    def resume_guest(self, vmid: int, agent: bool) -> None:
        self._guest(vmid).agent = agent

    def stop(self, vmid: int) -> None:
        with self._mutex:
            guest = self._guest(vmid)
            guest.running = guest.agent = False

    def shutdown(self, vmid: int, timeout: float, check: Callable[[], None] = lambda: None) -> bool:
        """Shut the guest down through the agent; such a guest ignores ACPI."""
        deadline = time.monotonic() + timeout
        while self.running(vmid):
            if self._guest(vmid).agent:
                self.stop(vmid)
            elif time.monotonic() >= deadline:
                return False
            else:
                time.sleep(min(0.1, timeout))
                check()
        return True

    def reset(self, vmid: int) -> None:
        self.start(vmid, {}, None)

    def running(self, vmid: int) -> bool:
        return self._guest(vmid).running

    def fault(self, name: str, on: bool, params: Mapping[str, Any]) -> bool:
        return False

    def on_power_off(self, callback: Callable[[int], None]) -> None:
        self._off = callback

    def agent(self, vmid: int, command: str, params: Mapping[str, Any]) -> Any:
        with self._mutex:
            guest = self._guest(vmid)
            if not guest.running or not guest.agent:
                raise AgentAbsent
            if command in _FACTS:
                if _FACTS[command] not in guest.facts:
                    raise AgentError(f"The command guest-{command} has not been found")
                return guest.facts[_FACTS[command]]
            if command == "get-host-name":
                return {"host-name": guest.facts.get("host-name", "localhost")}
            if command == "get-time":
                return time.time_ns()
            action = getattr(self, "_" + command.replace("-", "_"), None)
            return action(guest, params) if action else {}

    def _shutdown(self, guest: Guest, params: Mapping[str, Any]) -> Any:
        guest.running = guest.agent = False
        vmid = next(vmid for vmid, other in self._guests.items() if other is guest)
        threading.Thread(target=self._off, args=(vmid,), daemon=True).start()
        return {}

    def _exec(self, guest: Guest, params: Mapping[str, Any]) -> Any:
        argv = list(params["command"])
        entry = next((c for c in guest.facts.get("commands", []) if c["argv"] == argv), None)
        if entry is None:
            why = f"Failed to execute child process “{argv[0]}” (No such file or directory)"
            raise AgentError(f"Guest agent command failed, error was “{why}”")
        pid, guest.next_pid = guest.next_pid, guest.next_pid + 2
        ended = {key: entry[key] for key in ("exitcode", "signal") if key in entry}
        output = {"out-data": _text(entry.get("stdout", "")), "err-data": _text(entry.get("stderr", ""))}
        guest.processes[pid] = Process(time.monotonic() + entry.get("seconds", 0), {"exited": True, **ended, **output})
        for path, content in entry.get("writes", {}).items():
            guest.facts.setdefault("files", {})[path] = content
        return {"pid": pid}

    def _exec_status(self, guest: Guest, params: Mapping[str, Any]) -> Any:
        process = guest.processes.get(int(params["pid"]))
        if process is None:
            raise AgentError("PID ld does not exist")
        if time.monotonic() < process.ends:
            return {"exited": False}
        del guest.processes[int(params["pid"])]
        return process.result

    def _file_read(self, guest: Guest, params: Mapping[str, Any]) -> dict[str, str]:
        path = params["file"]
        if path not in guest.facts.get("files", {}):
            raise AgentError(f"failed to open file '{path}' (mode: 'r'): No such file or directory")
        return {"content": _text(guest.facts["files"][path])}

    def _file_write(self, guest: Guest, params: Mapping[str, Any]) -> None:
        path, files = params["file"], guest.facts.setdefault("files", {})
        folder = path.rpartition("/")[0]
        if folder not in _FOLDERS | {known.rpartition("/")[0] for known in files}:
            raise AgentError(f"failed to open file '{path}' (mode: 'wb'): No such file or directory")
        files[path] = params["content"]

    def _set_user_password(self, guest: Guest, params: Mapping[str, Any]) -> Any:
        name = params["username"]
        if name not in guest.facts.get("accounts", ["root"]):
            why = [
                "child process has failed to set user password: "
                f"chpasswd: (user {name}) pam_chauthtok() failed, error:",
                "Authentication token manipulation error",
                f"chpasswd: (line 1, user {name}) password not changed",
            ]
            raise AgentError("\n".join(why) + "\n")
        return {}
