"""OpenSSH's options: those of each of our connections, and what is kept of those that a flake names. Pure.

Flakes name some for deploy-rs, as sshOpts. A flake is not to say how a key is checked, what is run here, or which of
the operator's keys are offered. Kept is the port; what a connection of ours has anyway needs no word; all else is left,
to be named.
"""

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


@dataclass(frozen=True)
class SshOptions:
    """`port` as it is written, None where it is not; `left` are the options that are not kept, in words."""

    port: str | None = None
    left: tuple[tuple[str, ...], ...] = ()

    @classmethod
    def parse(cls, words: Sequence[str]) -> "SshOptions":
        """Read them as getopt does; what comes first counts."""
        ports: list[str] = []
        left: list[tuple[str, ...]] = []
        for name, value, written in _options(words):
            keyword, setting = _setting(value) if name == "o" else ("", "")
            if name == "p" or keyword == "port":
                ports.append(value.strip() if name == "p" else setting)
            elif name not in _AS_OURS and (keyword, setting.casefold()) not in _ALWAYS:
                left.append(written)
        return cls(ports[0] if ports else None, tuple(left))


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
