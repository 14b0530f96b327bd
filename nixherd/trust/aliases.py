"""An ssh_config for other programs: every machine by its names, with its pinned key and no other. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from nixherd.base.ssh_keys import known_hosts_line
from nixherd.base.terminal import one_line
from nixherd.ssh.destination import quoted


@dataclass(frozen=True)
class Alias:
    """A machine: its names, the first of which its key is kept under; where it is tried, as whom; its pinned key.

    `key` is None where none is pinned, `problem` why it cannot be used: then nothing is written but a remark. Without a
    `port` ssh_config says it, and so it does the way without a `jump`, which is as ProxyJump has it.
    """

    names: tuple[str, ...]
    address: str
    user: str
    key: str | None
    port: int | None = None
    jump: str | None = None
    problem: str = "no key is pinned for it"


def known_hosts(aliases: Iterable[Alias]) -> dict[str, str]:
    """By file name, the pinned key of each machine that has one: in files of their own, none is lost by another."""
    return {_kept_as(each): f"{known_hosts_line(_kept_as(each), each.key)}\n" for each in aliases if each.key}


def config(aliases: Iterable[Alias], directory: Path) -> str:
    """A block per machine, whose key is in the file of its name in `directory`. Usage where ssh cannot be told it."""
    return "\n".join(_block(each, quoted(directory / _kept_as(each))) for each in aliases)


def _block(alias: Alias, known_hosts: str) -> str:
    if alias.key is None:
        return f"# {one_line(alias.names[0])}: {one_line(alias.problem)}\n"
    settings = {
        "HostName": alias.address.replace("%", "%%"),
        **({"Port": str(alias.port)} if alias.port else {}),
        **({"ProxyJump": alias.jump} if alias.jump else {}),
        "User": alias.user,
        "HostKeyAlias": _kept_as(alias),
        "UserKnownHostsFile": known_hosts,
        "GlobalKnownHostsFile": "/dev/null",
        "StrictHostKeyChecking": "yes",
        "UpdateHostKeys": "no",
        "VerifyHostKeyDNS": "no",
    }
    lines = (f"  {name} {value}\n" for name, value in settings.items())
    return f"Host {' '.join(alias.names)}\n{''.join(lines)}"


def _kept_as(alias: Alias) -> str:
    return alias.names[0].lower()  # OpenSSH looks for what it is told in lines that it has put into lower case
