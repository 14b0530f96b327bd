"""The guest agent's commands, run from outside in the machine's namespaces; shapes as in qemu-ga's QMP reference."""

import os
import shlex
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from lab.backend import AgentAbsent, AgentError
from lab.machines.guest import Guest

AGENT = "qemu-ga"
ROOT_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "USER": "root",
    "LANG": "C.UTF-8",
}
READ_LIMIT = 16 << 20  # bytes; qemu-ga's limit


@dataclass
class _Run:
    """A command started by guest-exec; a thread collects its output."""

    process: subprocess.Popen[bytes]
    collector: threading.Thread
    output: tuple[bytes, bytes] = (b"", b"")


class Agent:
    """One machine's agent across its boots; started commands are forgotten at the end of the boot."""

    def __init__(self) -> None:
        self._runs: dict[int, _Run] = {}
        self._guest: Guest | None = None

    def call(self, guest: Guest | None, command: str, params: Mapping[str, Any]) -> Any:
        """Return the result of `command`. Raises AgentAbsent, AgentError."""
        if guest is None or guest.leader is None or not guest.runs(AGENT):
            raise AgentAbsent
        if guest is not self._guest:
            self._runs, self._guest = {}, guest
        served = _COMMANDS.get(command)
        if served is None:
            raise AgentError(f"The command guest-{command} has not been found")
        try:
            return served(self, guest, params)
        except ProcessLookupError:
            raise AgentAbsent from None
        except AgentError:
            if guest.leader is None:  # the guest went down during the command
                raise AgentAbsent from None
            raise

    def execute(self, guest: Guest, params: Mapping[str, Any]) -> dict[str, int]:
        """Run guest-exec: `command` is an argv (a single string: a path), `input-data` its stdin as Latin-1."""
        command = params["command"]
        argv = [command] if isinstance(command, str) else list(command)
        if _in_guest(guest, "/bin/sh", "-c", 'command -v -- "$0" >/dev/null', argv[0]).returncode:
            raise AgentError(
                f"Guest agent command failed, error was 'Failed to execute child process “{argv[0]}”"
                " (No such file or directory)'"
            )
        process = subprocess.Popen(
            guest.command(_clean(argv)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        stdin = str(params.get("input-data") or "").encode("latin-1")
        collector = threading.Thread(target=self._collect, args=(process, stdin), daemon=True)
        self._runs[process.pid] = _Run(process, collector)
        collector.start()
        return {"pid": process.pid}

    def _collect(self, process: subprocess.Popen[bytes], stdin: bytes) -> None:
        output = process.communicate(stdin)
        run = self._runs.get(process.pid)
        if run:
            run.output = output

    def execute_status(self, guest: Guest, params: Mapping[str, Any]) -> dict[str, Any]:
        """Run guest-exec-status: the result of an ended command is returned once."""
        pid = int(params["pid"])
        run = self._runs.get(pid)
        if run is None:
            raise AgentError("PID ld does not exist")  # sic, qemu-ga 10.0
        run.collector.join(0.02)
        if run.collector.is_alive():
            return {"exited": False}
        del self._runs[pid]
        status = run.process.returncode
        answer: dict[str, Any] = {"exited": True}
        if status < 0 or status > 128:  # nsenter reports a signal's death as 128 + n when it cannot die of it itself
            answer["signal"] = -status if status < 0 else status - 128
        else:
            answer["exitcode"] = status
        for key, data in zip(("out-data", "err-data"), run.output, strict=True):
            if data:
                answer[key] = data[:READ_LIMIT].decode("latin-1")
                answer[key.replace("data", "truncated")] = len(data) > READ_LIMIT
        return answer


def _clean(argv: list[str]) -> list[str]:
    """Return `argv` with the agent's environment only."""
    return ["/usr/bin/env", "-i", "-C", "/", *(f"{key}={value}" for key, value in ROOT_ENVIRONMENT.items()), *argv]


def _in_guest(guest: Guest, *argv: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(guest.command(_clean(list(argv))), input=stdin, capture_output=True)


def _text(guest: Guest, *argv: str) -> str:
    """Return the output of a program in the guest. Raises AgentError."""
    done = _in_guest(guest, *argv)
    if done.returncode:
        raise AgentError(done.stderr.decode(errors="replace").strip())
    return done.stdout.decode(errors="replace")


def _ping(agent: Agent, guest: Guest, params: Mapping[str, Any]) -> dict[str, Any]:
    return {}


def _interfaces(agent: Agent, guest: Guest, params: Mapping[str, Any]) -> list[dict[str, Any]]:
    interfaces = []
    for link in guest.plug.interfaces():
        item: dict[str, Any] = {"name": link["ifname"], "hardware-address": link.get("address", "00:00:00:00:00:00")}
        addresses = [
            {
                "ip-address": address["local"],
                "ip-address-type": "ipv4" if address["family"] == "inet" else "ipv6",
                "prefix": address["prefixlen"],
            }
            for address in link.get("addr_info", [])
        ]
        if addresses:
            item["ip-addresses"] = addresses
        counters = link.get("stats64", {})
        item["statistics"] = {
            f"{way}-{ours}": counters.get(way, {}).get(theirs, 0)
            for way in ("rx", "tx")
            for ours, theirs in (("bytes", "bytes"), ("packets", "packets"), ("errs", "errors"), ("dropped", "dropped"))
        }
        interfaces.append(item)
    return interfaces


def _host_name(agent: Agent, guest: Guest, params: Mapping[str, Any]) -> dict[str, str]:
    return {"host-name": _text(guest, "/usr/bin/uname", "-n").strip()}


def _os_info(agent: Agent, guest: Guest, params: Mapping[str, Any]) -> dict[str, str]:
    lines = _text(guest, "/usr/bin/cat", "/etc/os-release").splitlines()
    values = {key: " ".join(shlex.split(value)) for key, _, value in (line.partition("=") for line in lines) if value}
    keys = {"ID": "id", "NAME": "name", "PRETTY_NAME": "pretty-name", "VERSION": "version", "VERSION_ID": "version-id"}
    keys |= {"VARIANT": "variant", "VARIANT_ID": "variant-id"}
    kernel = os.uname()
    answer = {ours: values[theirs] for theirs, ours in keys.items() if theirs in values}
    return answer | {"kernel-release": kernel.release, "kernel-version": kernel.version, "machine": kernel.machine}


def _file_read(agent: Agent, guest: Guest, params: Mapping[str, Any]) -> dict[str, str]:
    """Return {content}: the file's bytes as Latin-1, at most one more than may be shown."""
    path = str(params["file"])
    done = _in_guest(guest, "/usr/bin/head", "-c", str(READ_LIMIT + 1), "--", path)
    if done.returncode:
        reason = done.stderr.decode(errors="replace").strip().rpartition(": ")[2]
        raise AgentError(f"failed to open file '{path}' (mode: 'r'): {reason}")
    return {"content": done.stdout.decode("latin-1")}


def _file_write(agent: Agent, guest: Guest, params: Mapping[str, Any]) -> None:
    """Write `content`, Latin-1 text of the bytes; the file's mode follows the agent's umask of 0."""
    path = str(params["file"])
    script = 'umask 0; exec cat >"$0"'
    done = _in_guest(guest, "/bin/sh", "-c", script, path, stdin=str(params["content"]).encode("latin-1"))
    if done.returncode:
        reason = done.stderr.decode(errors="replace").strip().rpartition(": ")[2]
        raise AgentError(f"failed to open file '{path}' (mode: 'w+'): {reason}")


def _set_password(agent: Agent, guest: Guest, params: Mapping[str, Any]) -> dict[str, Any]:
    crypted = ["-e"] if params.get("crypted") else []
    stdin = f"{params['username']}:{params['password']}\n".encode()
    done = _in_guest(guest, "/usr/sbin/chpasswd", *crypted, stdin=stdin)
    if done.returncode:
        raise AgentError("child process has failed to set user password")
    return {}


def _time(agent: Agent, guest: Guest, params: Mapping[str, Any]) -> int:
    return time.time_ns()


def _timezone(agent: Agent, guest: Guest, params: Mapping[str, Any]) -> dict[str, Any]:
    zone, offset = _text(guest, "/usr/bin/date", "+%Z %z").split()
    seconds = (int(offset[1:3]) * 60 + int(offset[3:])) * (-60 if offset[0] == "-" else 60)
    return {"zone": zone, "offset": seconds}


def _fs_info(agent: Agent, guest: Guest, params: Mapping[str, Any]) -> list[dict[str, Any]]:
    filesystems = []
    for line in _text(guest, "/usr/bin/findmnt", "-rnbo", "SOURCE,TARGET,FSTYPE,SIZE,USED").splitlines():
        source, target, kind, size, used = (line.split(" ") + [""] * 5)[:5]
        if _is_disk(source):
            filesystems.append(
                {"name": source.removeprefix("/dev/"), "mountpoint": target, "type": kind, "disk": []}
                | {"total-bytes": int(size or 0), "used-bytes": int(used or 0)}
            )
    return filesystems


def _is_disk(source: str) -> bool:
    """Return whether a mount's source is a disk of the machine."""
    return source.startswith(("/dev/sd", "/dev/vd")) and "[" not in source


def _shutdown(agent: Agent, guest: Guest, params: Mapping[str, Any]) -> None:
    guest.power_button()


def _info(agent: Agent, guest: Guest, params: Mapping[str, Any]) -> dict[str, Any]:
    names = [*_COMMANDS, "file-open", "file-close"]  # the API opens, reads and closes in one call
    return {
        "version": "10.0.13",
        "supported_commands": [
            {"name": f"guest-{name}", "enabled": True, "success-response": name != "shutdown"} for name in names
        ],
    }


_COMMANDS: dict[str, Callable[[Agent, Guest, Mapping[str, Any]], Any]] = {
    "ping": _ping,
    "info": _info,
    "exec": Agent.execute,
    "exec-status": Agent.execute_status,
    "file-read": _file_read,
    "file-write": _file_write,
    "network-get-interfaces": _interfaces,
    "get-host-name": _host_name,
    "get-osinfo": _os_info,
    "get-fsinfo": _fs_info,
    "get-time": _time,
    "get-timezone": _timezone,
    "get-users": lambda agent, guest, params: [],
    "set-user-password": _set_password,
    "shutdown": _shutdown,
}
