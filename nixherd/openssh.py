"""OpenSSH's command line, for what is streamed or copied by other programs (Nix, tar): pinned like ours."""

import shlex
from dataclasses import dataclass, replace
from pathlib import Path

from nixherd.errors import Usage


@dataclass(frozen=True)
class Destination:
    """Where a machine can be reached right now, as whom, and the only host keys that are accepted there.

    `identity` is the one key to log in with; without it the agent's are offered, and `offered`.
    """

    address: str
    user: str
    known_hosts: Path
    port: int = 22
    identity: Path | None = None
    offered: tuple[Path, ...] = ()

    @property
    def options(self) -> list[str]:
        """OpenSSH options that leave no room for a key on trust, a question, or a wait without end."""
        options = [
            "-o", "BatchMode=yes",
            "-o", "StrictHostKeyChecking=yes",
            "-o", f"UserKnownHostsFile={self.known_hosts}",
            "-o", "GlobalKnownHostsFile=/dev/null",
            "-o", "UpdateHostKeys=no",
            # A master of the user's configuration was checked against other keys, or in another epoch; so were those.
            "-o", "ControlMaster=no",
            "-o", "ControlPath=none",
            "-o", "KnownHostsCommand=none",
            "-o", "VerifyHostKeyDNS=no",
            "-o", "ConnectTimeout=10",
            "-o", "ServerAliveInterval=5",
            "-o", "ServerAliveCountMax=4",
        ]  # fmt: skip
        if self.port != 22:
            options += ["-p", str(self.port)]
        if self.identity:
            options += ["-i", str(self.identity), "-o", "IdentitiesOnly=yes"]
        for key in () if self.identity else self.offered:
            options += ["-i", str(key)]
        return options

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

        Usage when they listen on different ports.
        """
        if other.port != self.port:
            raise Usage(f"{self.target} and {other.target} listen on different ports, which one program cannot be told")
        keys = [key for each in (self, other) for key in ((each.identity,) if each.identity else each.offered)]
        return replace(self, known_hosts=known_hosts, identity=None, offered=tuple(dict.fromkeys(keys)))

    def argv(self, command: str) -> list[str]:
        return ["ssh", *self.options, "--", self.target, command]

    @property
    def nix_sshopts(self) -> str:
        """The same for Nix, which splits NIX_SSHOPTS at white space."""
        return " ".join(shlex.quote(option) for option in self.options)
