"""OpenSSH's options: those of each of our connections, and what is kept of those that a flake names. Pure.

Flakes name some for deploy-rs, as sshOpts. A flake is not to say how a key is checked, what is run here, or which of
the operator's keys are offered. Kept are the port and the hops; what a connection of ours has anyway needs no word; all
else is left, to be named.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

# Of every connection, hops included. Nothing here leaves room for a key on trust, a question, or a wait without end.
# A master of somebody else's was checked against other keys, or in another epoch.
ALWAYS = (
    ("BatchMode", "yes"),
    ("StrictHostKeyChecking", "yes"),
    ("GlobalKnownHostsFile", "/dev/null"),
    ("UpdateHostKeys", "no"),
    ("KnownHostsCommand", "none"),
    ("VerifyHostKeyDNS", "no"),
    ("CheckHostIP", "no"),
    ("NoHostAuthenticationForLocalhost", "no"),
    ("CanonicalizeHostname", "no"),
    ("PreferredAuthentications", "publickey"),
    ("AddKeysToAgent", "no"),
    ("ForwardAgent", "no"),
    ("ForwardX11", "no"),
    ("ClearAllForwardings", "yes"),
    ("Tunnel", "no"),
    ("PermitLocalCommand", "no"),
    ("RequestTTY", "no"),
    ("EscapeChar", "none"),
    ("ConnectTimeout", "10"),
    ("ServerAliveInterval", "5"),
    ("ServerAliveCountMax", "4"),
)

# ssh(1): options with an argument; the others are flags
_WITH_ARGUMENT = "BbcDEeFIiJLlmOoPpQRSWw"
# What ours are as well: nothing is forwarded, no terminal, no words.
_AS_OURS = "aTxq"
_ALWAYS = {(name.casefold(), value.casefold()) for name, value in ALWAYS}

ADDRESS = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*(%[A-Za-z0-9_.-]+)?", re.ASCII)
"""a host name or address that no program takes for an option"""
USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@+-]*\$?", re.ASCII)
_HOP = re.compile(
    r"(?:ssh://)?(?:(?P<user>.+)@)?(?:\[(?P<six>[^]]+)\]|(?P<host>[^:\[\]]+))(?::(?P<port>\d{1,5}))?/?", re.ASCII
)


@dataclass(frozen=True)
class HopName:
    """A hop as ProxyJump has it; what it leaves out is None."""

    name: str
    user: str | None = None
    port: int | None = None

    @classmethod
    def parse(cls, text: str) -> "HopName":
        """From `[USER@]NAME[:PORT]`, an IPv6 address with a port in brackets. ValueError for anything else."""
        user, _, place = text.strip().removeprefix("ssh://").rpartition("@")
        if place.count(":") > 1 and ADDRESS.fullmatch(place):
            text = f"{user}@[{place}]" if user else f"[{place}]"
        parts = _HOP.fullmatch(text.strip())
        name = (parts["six"] or parts["host"]) if parts else ""
        if parts is None or not ADDRESS.fullmatch(name) or (parts["user"] and not USER.fullmatch(parts["user"])):
            raise ValueError(f"{text!r} is not a [USER@]NAME[:PORT]")
        port = int(parts["port"]) if parts["port"] else None
        if port is not None and not 1 <= port <= 65535:
            raise ValueError(f"{text!r} is not a [USER@]NAME[:PORT]")
        return cls(name, parts["user"], port)

    def __str__(self) -> str:
        user = f"{self.user}@" if self.user else ""
        name = f"[{self.name}]" if ":" in self.name else self.name
        return f"{user}{name}{f':{self.port}' if self.port else ''}"


@dataclass(frozen=True)
class SshOptions:
    """`port` and `jump` as they are written, None where they are not; `left` are the options that are not kept, in
    words."""

    port: str | None = None
    left: tuple[tuple[str, ...], ...] = ()
    jump: str | None = None

    @classmethod
    def parse(cls, words: Sequence[str]) -> "SshOptions":
        """Read them as getopt does; what comes first counts."""
        ports: list[str] = []
        jumps: list[str] = []
        left: list[tuple[str, ...]] = []
        for name, value, written in _options(words):
            keyword, setting = _setting(value) if name == "o" else ("", "")
            if name == "p" or keyword == "port":
                ports.append(value.strip() if name == "p" else setting)
            elif name == "J" or keyword == "proxyjump":
                jumps.append(value.strip() if name == "J" else setting)
            elif name not in _AS_OURS and (keyword, setting.casefold()) not in _ALWAYS:
                left.append(written)
        return cls(ports[0] if ports else None, tuple(left), jumps[0] if jumps else None)


def _options(words: Sequence[str]) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """Each option's letter, its argument and its words; for anything else the letter is `?`."""
    rest = iter(words)
    for word in rest:
        if word in ("", "-", "--") or word[0] != "-":
            yield "?", "", (word,)
            continue
        for place, letter in enumerate(word[1:], start=1):
            if letter not in _WITH_ARGUMENT:
                yield letter, "", (f"-{letter}",)
            elif value := word[place + 1 :]:
                yield letter, value, (f"-{letter}{value}",)
                break
            else:
                value = next(rest, "")
                yield letter, value, (f"-{letter}", value) if value else (f"-{letter}",)
                break


def _setting(text: str) -> tuple[str, str]:
    """A line of ssh_config: keyword and value, with white space or `=` between."""
    text = text.strip()
    end = next((place for place, letter in enumerate(text) if letter in "= \t"), len(text))
    return text[:end].casefold(), text[end:].strip().removeprefix("=").strip().strip('"')
