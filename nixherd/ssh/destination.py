"""OpenSSH's command line, for what is streamed or copied by other programs (Nix, tar): pinned like ours.

No ssh_config is read on a connection, neither the user's nor the system's: what ours takes from them is in a Route,
by `nixherd.ssh.ssh_config`. Programs that split what they are told at white space get everything in one file. Pure.
"""

import os
import shlex
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from nixherd.base.becoming_root import Root
from nixherd.base.errors import FleetError, Usage
from nixherd.base.names import PLAIN_PATH, is_a
from nixherd.base.ssh_options import ALWAYS

PIPE = "NIXHERD_SUDO_PIPE"
# Connections that can be made in one go: Nix makes one, and another one where the machine has moved.
_TOLD = 8
_SSH = f"""\
#!/bin/sh
PATH=${{PATH#*:}}
IFS= read -r word <"${PIPE}" || exit 255
unset {PIPE}
{{ printf '%s\\n' "$word"; exec cat; }} | exec ssh "$@"
"""


_NO_MASTER = (("ControlMaster", "no"), ("ControlPath", "none"))
_HOP = "nixherd-hop-"


@contextmanager
def told(root: Root | None) -> Iterator[dict[str, str]]:
    """The environment of a local program that reaches the machine through `ssh`: there sudo is told the password."""
    if root is None or root.password is None:
        yield {}
        return
    with tempfile.TemporaryDirectory(prefix="nixherd-") as directory:
        ssh, pipe = Path(directory) / "ssh", Path(directory) / "pipe"
        ssh.write_text(_SSH)
        ssh.chmod(0o700)
        if not os.access(ssh, os.X_OK):  # another ssh would be taken, and sudo wait for ever
            raise FleetError(f"{directory}: no program can be run from there; set TMPDIR to where one can")
        os.mkfifo(pipe, 0o600)
        handle = os.open(pipe, os.O_RDWR)  # for both: neither waits for the other
        try:
            os.write(handle, f"{root.password}\n".encode() * _TOLD)
            yield {"PATH": os.pathsep.join([directory, os.environ.get("PATH", os.defpath)]), PIPE: str(pipe)}
        finally:
            os.close(handle)


@dataclass(frozen=True)
class Identities:
    """What is offered to log in with. `agent` is a socket, `none`, or None for the one that $SSH_AUTH_SOCK names.

    `only` these files: of the agent's keys those alone that are among them.
    """

    files: tuple[Path, ...] = ()
    certificates: tuple[Path, ...] = ()
    agent: str | None = None
    only: bool = False


@dataclass(frozen=True)
class Route:
    """How a machine is come to: by which kind of address (any, inet, inet6), from where, and through what.

    `jumps` are the hops in the order in which they are passed; `command` is a program, run by a shell, that makes the
    connection (the first one, where there are hops too).
    """

    family: str = "any"
    bind: str | None = None
    command: str | None = None
    jumps: tuple["Jump", ...] = ()


@dataclass(frozen=True)
class Jump:
    """A machine on the way. `key_name` is under which name its key is in `known_hosts`, where that is not its own."""

    name: str
    address: str
    port: int
    user: str
    known_hosts: tuple[Path, ...]
    key_name: str | None = None
    identities: Identities = Identities()
    family: str = "any"
    bind: str | None = None

    def __str__(self) -> str:
        return self.name if self.name == self.address else f"{self.name} ({self.address})"


@dataclass(frozen=True)
class Destination:
    """Where a machine can be reached right now, as whom, and the only host keys that are accepted there.

    `identity` is the one key to log in with; without it the agent's are offered, and `offered`. `config` is the file
    that all this is written in, as `text` has it; its path is plain.
    """

    address: str
    user: str
    known_hosts: Path
    port: int = 22
    identity: Path | None = None
    offered: tuple[Path, ...] = ()
    certificates: tuple[Path, ...] = ()
    agent: str | None = None
    identities_only: bool = False
    route: Route = Route()
    others: tuple["Destination", ...] = field(default=(), repr=False)
    config: Path | None = None

    @property
    def identities(self) -> Identities:
        if self.identity:
            return Identities((self.identity,), only=True)
        return Identities(self.offered, self.certificates, self.agent, self.identities_only)

    @property
    def options(self) -> list[str]:
        """OpenSSH's options: the file, or every one of its lines in words. Usage for what can only be in the file."""
        if self.config:
            return ["-F", str(self.config)]
        if self.route.jumps or self.others:
            raise Usage(f"the way to {self.target} can be told in a file only")
        words = [f"{name}={value}" for name, value in (*self._settings(), *ALWAYS, *_NO_MASTER)]
        return ["-F", "/dev/null", *(word for each in words for word in ("-o", each))]

    @property
    def text(self) -> str:
        """An ssh_config for this connection, and for those to the hops and to `others`."""
        blocks = []
        for each in (self, *self.others):
            # whatever name Nix has for it, where it is the only one
            pattern = f"{each.address} [{each.address}]" if self.others else f"* !{_HOP}*"
            blocks.append(_block(pattern, each._settings()))
            blocks += (_block(*each._hop(place)) for place in range(len(each.route.jumps)))
        nobody = ("UserKnownHostsFile", "/dev/null")  # what comes first counts: for a name that none of them is
        return "\n\n".join((*dict.fromkeys(blocks), _block("*", (*ALWAYS, *_NO_MASTER, nobody)))) + "\n"

    def _settings(self) -> Iterator[tuple[str, str]]:
        route = self.route
        yield "Port", str(self.port)
        yield "UserKnownHostsFile", quoted(self.known_hosts)
        yield from _offers(self.identities)
        yield from _through(route.family, route.bind)
        if route.jumps:
            yield "ProxyJump", self._hop_name(len(route.jumps) - 1)
        elif route.command:
            yield "ProxyCommand", route.command.replace("%", "%%")

    def _hop_name(self, place: int) -> str:
        """A name that no machine has."""
        return f"{_HOP}{place + 1}-to-{self.address.replace(':', '-').replace('%', '-')}-{self.port}"

    def _hop(self, place: int) -> tuple[str, Iterator[tuple[str, str]]]:
        jump = self.route.jumps[place]

        def settings() -> Iterator[tuple[str, str]]:
            yield "HostName", jump.address.replace("%", "%%")
            yield "Port", str(jump.port)
            yield "User", jump.user
            yield "UserKnownHostsFile", " ".join(quoted(path) for path in jump.known_hosts)
            if jump.key_name:
                yield "HostKeyAlias", jump.key_name
            yield from _offers(jump.identities)
            yield from _through(jump.family, jump.bind)
            if place:
                yield "ProxyJump", self._hop_name(place - 1)
            elif self.route.command:
                yield "ProxyCommand", self.route.command.replace("%", "%%")

        return self._hop_name(place), settings()

    @property
    def carrier(self) -> list[str] | None:
        """The program whose standard input and output lead to the machine's sshd; None where TCP does."""
        if not self.route.jumps:
            return None
        address = f"[{self.address}]" if ":" in self.address else self.address
        return ["ssh", *self.options, "-W", f"{address}:{self.port}", "--", self._hop_name(len(self.route.jumps) - 1)]

    @property
    def way(self) -> str:
        """Through what, for messages; empty where that is nothing."""
        if self.route.jumps:
            return f" through {', '.join(map(str, self.route.jumps))}"
        return " through the ProxyCommand of your ssh_config" if self.route.command else ""

    @property
    def target(self) -> str:
        """`user@address`, as ssh wants it."""
        return f"{self.user}@{self.address}"

    @property
    def url(self) -> str:
        """`ssh://user@address`, as Nix wants it: an IPv6 address in brackets."""
        return f"ssh://{self.user}@{f'[{self.address}]' if ':' in self.address else self.address}"

    @property
    def daemon(self) -> str:
        """The machine's Nix daemon, which also builds."""
        return self.url.replace("ssh://", "ssh-ng://", 1)

    def along_with(self, other: "Destination", known_hosts: Path) -> "Destination":
        """This one with options that do for the other one too; `known_hosts` has both their keys.

        Its `text` is to be written anew. Usage when they have one address and listen there on different ports.
        """
        if other.address == self.address and other.port != self.port:
            raise Usage(f"{self.target} and {other.target} listen on different ports, which one program cannot be told")
        others = () if other.address == self.address else (replace(other, known_hosts=known_hosts, others=()),)
        return replace(self, known_hosts=known_hosts, others=others, config=None)

    def argv(self, command: str) -> list[str]:
        return ["ssh", *self.options, "--", self.target, command]

    @property
    def nix_sshopts(self) -> str:
        """The same for Nix and nixos-rebuild, some of which split at white space and know no quotes."""
        # nixos-rebuild would make a master; what is said first counts
        master = [word for name, value in _NO_MASTER for word in ("-o", f"{name}={value}")] if self.config else []
        return " ".join(shlex.quote(option) for option in [*self.options, *master])


def quoted(path: Path) -> str:
    """A path as ssh_config takes it where it splits values and expands `%` and `${`. Usage for one it cannot take."""
    text = str(path)
    if "${" in text or not text.isprintable():
        raise Usage(f"{text!r}: ssh cannot be told this path; name one without ${{ and control characters")
    text = text.replace("%", "%%")
    if is_a(PLAIN_PATH, text):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _offers(identities: Identities) -> Iterator[tuple[str, str]]:
    for file in identities.files:
        yield "IdentityFile", quoted(file)
    if not identities.files:  # else those in the password database's home are
        yield "IdentityFile", "none"
    for certificate in identities.certificates:
        yield "CertificateFile", quoted(certificate)
    if identities.agent:
        yield "IdentityAgent", identities.agent if identities.agent == "none" else quoted(Path(identities.agent))
    yield "IdentitiesOnly", "yes" if identities.only else "no"


def _through(family: str, bind: str | None) -> Iterator[tuple[str, str]]:
    if family != "any":
        yield "AddressFamily", family
    if bind:
        yield "BindAddress", bind


def _block(pattern: str, settings: "Iterator[tuple[str, str]] | tuple[tuple[str, str], ...]") -> str:
    return "\n  ".join((f"Host {pattern}", *(f"{name} {value}" for name, value in settings)))
