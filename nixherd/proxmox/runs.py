"""Which run of nixherd made something on the server: it says so in a description, and another run reads it back.

A run is a process; whether one of another machine, of another user or of before the last boot is still at work cannot
be seen from here, and is never guessed.
"""

import getpass
import os
import re
import secrets
from functools import cache
from hashlib import sha256
from pathlib import Path

_BY = re.compile(r"\bby (?P<who>\S+), process (?P<pid>\d+)/(?P<began>\d+) of (?P<where>[0-9a-f]{8})\b", re.ASCII)


def name_of_this_run() -> str:
    """Six hexadecimal digits, the same as long as this process runs."""
    return _name_of(os.getpid())


@cache
def _name_of(_pid: int) -> str:
    return secrets.token_hex(3)


def by_this_run() -> str:
    """`by alice@laptop, process 1234/567 of 1a2b3c4d`, without the process where the kernel does not tell of it."""
    name = f"by {_word(_user())}@{_word(os.uname().nodename)}"
    pid, where = os.getpid(), _where()
    began = _began(pid)
    return name if where is None or began is None else f"{name}, process {pid}/{began} of {where}"


def maker(description: str) -> str:
    """Who made it, in words; empty where it does not say."""
    match = re.search(r"\bby (\S+@[^\s,]+)", description)
    return match[1] if match else ""


def has_ended(description: str) -> bool:
    """Whether a run of this user on this machine made it that is at work no more. What cannot be told is no."""
    match = _BY.search(description)
    if match is None or match["where"] != _where():
        return False
    pid = int(match["pid"])
    return pid == os.getpid() or _began(pid) != int(match["began"])


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user without a name
        return str(os.getuid())


def _word(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]", "_", text) or "unknown"


def _where() -> str | None:
    """Where processes of this user are numbered as ours are, since the last boot; None where nobody tells."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return sha256(f"{boot} {Path('/proc/self/ns/pid').readlink()} {os.getuid()}".encode()).hexdigest()[:8]
    except OSError:
        return None


def _began(pid: int) -> int | None:
    """When a process began, in the kernel's ticks since the boot; None where there is none."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return None
