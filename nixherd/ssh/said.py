"""What `ssh -G` says of one name: of the closed list of keywords alone, with its tokens and variables."""

import getpass
import os
import re
import socket
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from nixherd.base.errors import Usage
from nixherd.base.files import expanded
from nixherd.ssh.destination import Identities

USUAL_KEYS = ("id_ed25519", "id_ecdsa", "id_rsa")


@dataclass(frozen=True)
class Said:
    """What the configuration says of one name; of what follows a default, nothing.

    `files` and `certificates` are as they stand there, with their tokens; `files` is None where there are none.
    """

    name: str
    user: str
    hostname: str | None = None
    port: int | None = None
    family: str = "any"
    bind: str | None = None
    jumps: tuple[str, ...] = ()
    command: str | None = None
    files: tuple[str, ...] | None = None
    certificates: tuple[str, ...] = ()
    agent: str | None = None
    only: bool = False

    def same_as(self, other: "Said") -> bool:
        """Whether two names are told apart at all."""
        return replace(self, name="", user="") == replace(other, name="", user="")


def parse(text: str, name: str, usual: Collection[str] = ()) -> Said:
    """What `ssh -G NAME` printed; `usual` are the identity files that it names of itself."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        keyword, _, value = line.partition(" ")
        found.setdefault(keyword, []).append(value)

    def one(keyword: str) -> str | None:
        value = found.get(keyword, [""])[0]
        return None if value in ("", "none") else value

    files = tuple(found.get("identityfile", ()))
    hostname, port = one("hostname"), one("port")
    return Said(
        name=name,
        user=one("user") or getpass.getuser(),
        hostname=hostname if hostname and hostname.casefold() != name.casefold() else None,
        port=int(port) if port and port != "22" else None,
        family=one("addressfamily") or "any",
        bind=one("bindaddress"),
        jumps=tuple((one("proxyjump") or "").split(",")) if one("proxyjump") else (),
        command=one("proxycommand"),
        files=None if set(files) <= set(usual) else tuple(file for file in files if file != "none"),
        certificates=tuple(file for file in found.get("certificatefile", ()) if file != "none"),
        agent=found.get("identityagent", [None])[0],
        only=one("identitiesonly") == "yes",
    )


def usual_keys() -> tuple[Path, ...]:
    """Those that there are in $HOME; OpenSSH itself looks in the password database's."""
    return tuple(path for name in USUAL_KEYS if (path := Path.home() / ".ssh" / name).exists())


def identities(settings: Said) -> Identities:
    """What is offered there: the files that are named, else the usual ones; and where the agent is."""

    def path(text: str) -> Path:
        return expanded(_variables(expanded_tokens(text, settings)))

    return Identities(
        usual_keys() if settings.files is None else tuple(map(path, settings.files)),
        tuple(map(path, settings.certificates)),
        _agent(settings.agent),
        settings.only,
    )


def _agent(text: str | None) -> str | None:
    if text is None or text == "SSH_AUTH_SOCK":
        return None
    if text.startswith("$"):
        return os.environ.get(text.strip("${}")) or "none"
    return text


def expanded_tokens(text: str, settings: Said) -> str:
    """With the tokens of ssh_config(5) replaced, as they are for the name that the configuration speaks of."""
    node = socket.gethostname()
    tokens: Mapping[str, str] = {
        "%": "%",
        "d": str(Path.home()),
        "h": settings.hostname or settings.name,
        "i": str(os.getuid()),
        "j": ",".join(settings.jumps),
        "k": settings.name,
        "L": node.partition(".")[0],
        "l": node,
        "n": settings.name,
        "p": str(settings.port or 22),
        "r": settings.user,
        "u": getpass.getuser(),
    }

    def token(match: re.Match[str]) -> str:
        if match[1] not in tokens:
            raise Usage(f"ssh_config: {text}: %{match[1]} is not understood here; write it without")
        return tokens[match[1]]

    return re.sub(r"%(.?)", token, text)


def _variables(text: str) -> str:
    def variable(match: re.Match[str]) -> str:
        if match[1] not in os.environ:
            raise Usage(f"ssh_config: {text}: the environment has no {match[1]}; set it, or write it without")
        return os.environ[match[1]]

    return re.sub(r"\$\{([^}]*)\}", variable, text)
