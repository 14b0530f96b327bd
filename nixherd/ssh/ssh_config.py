"""What is taken from the operator's ssh_config: a closed list, as `ssh -G` reads it, and nothing else.

HostName, Port, ProxyJump, ProxyCommand, AddressFamily, BindAddress, IdentityFile, CertificateFile, IdentityAgent and
IdentitiesOnly. `ssh -G` connects to nothing; it does run what the operator's own `Match exec` says. The connection is
then made under a configuration of ours (`nixherd.ssh.destination`), so that no other setting has any part in it.

Hops are verified by a key that the fleet pins, else by the operator's known_hosts; never on trust. Those that the
fleet names take the place of what the configuration says of the way to that machine; of the hops themselves it speaks.
"""

import os
import pwd
import re
import shlex
import socket
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from nixherd.base.errors import DeadlineExceeded, ProcessFailed, Usage
from nixherd.base.files import expanded
from nixherd.base.process import run
from nixherd.base.ssh_options import ADDRESS, USER, HopName
from nixherd.base.waiting import Once, OncePer
from nixherd.ssh.destination import Identities, Jump, Route
from nixherd.ssh.said import Said, expanded_tokens, identities, parse

DEADLINE = 30.0  # seconds for `ssh -G`: a `Match exec` may ask the network
SYSTEM_CONFIG = Path("/etc/ssh/ssh_config")
_MOST_JUMPS = 8
# Names that no machine has: what is said of all, and what ssh says of itself.
_NOBODY = "nobody.nixherd.invalid"
# What `ssh -v` says of each file; and what in it goes by the name: a block that is not for all, or a token.
_READS = "Reading configuration data "
_APART = re.compile(r"^[ \t]*(?:match\b|host\b(?![ \t]*=?[ \t]*\*[ \t]*$)|[^#\s][^\n]*%)", re.IGNORECASE | re.MULTILINE)
_FAMILIES = {"any": socket.AF_UNSPEC, "inet": socket.AF_INET, "inet6": socket.AF_INET6}


@dataclass(frozen=True)
class Way:
    """How to reach a machine. `named` is which of its names the configuration speaks of."""

    address: str
    port: int = 22
    route: Route = field(default_factory=Route)
    identities: Identities = field(default_factory=Identities)
    named: str | None = None


Pin = Callable[[Collection[str]], tuple[str, Path] | None]
"""From the names of a hop to the name and the file that its key is pinned by, where it is a host of the fleet"""


@dataclass(frozen=True)
class Hop:
    """A host of the fleet that others are reached through, the last of its `names` where it is; unless `is_there`, a
    HostName of any of them says where instead.

    `jump` is what it is reached through itself, None where the configuration says that.
    """

    id: str
    names: tuple[str, ...]
    user: str
    port: int | None = None
    jump: tuple[str, ...] | None = None
    is_there: bool = True


Known = Callable[[str], Hop | None]
"""From what the fleet calls a hop to what it says of it, where it is a host of the fleet; Usage where none may pass"""


def config_options(given: str | None = None) -> list[str]:
    """Which files `ssh -G` reads: one that was named, else its own; where HOME is another one than the password
    database's, which OpenSSH goes by, what is there."""
    home = Path.home()
    if given:
        return ["-F", str(expanded(given))]
    if home == Path(pwd.getpwuid(os.getuid()).pw_dir):
        return []
    there = [path for path in (home / ".ssh" / "config", SYSTEM_CONFIG) if path.is_file()]
    return ["-F", str(there[0]) if there else "/dev/null"]


class Answers:
    """What `ssh -G` said in this run, by its options and the names it was asked for."""

    def __init__(self) -> None:
        self.texts: OncePer[tuple[str, ...], list[str]] = OncePer("asking ssh for its configuration")
        self.of_nobody: OncePer[tuple[str, ...], tuple[Said, bool]] = OncePer("asking ssh for its configuration")
        self.usual: Once[tuple[str, ...]] = Once("asking ssh for its usual identity files")


@dataclass(frozen=True)
class Configuration:
    """The operator's ssh_config. `answers` keeps what ssh said already; `pin` knows the fleet's keys, `hop` its
    hosts."""

    options: tuple[str, ...]
    answers: Answers
    pin: Pin
    hop: Known = lambda name: None

    def way_to(
        self,
        names: Sequence[str],
        user: str,
        port: int | None = None,
        *,
        address: str | None = None,
        installed: bool = True,
        jump: Sequence[str] | None = None,
    ) -> Way:
        """The way to a machine: what is said of the first of its names of which anything is said.

        `jump` are the hops that the fleet names; where it is None the configuration says which there are.

        `address`, one of them and else the last, is where it is. What is said of another one does not move it: HostName
        has no part then, nor has Port before it is `installed`, when another system listens there. Usage when the
        configuration cannot be read, or says what cannot be followed.
        """
        settings, there = self._there(names, user, port, address or names[-1], installed=installed)
        named = None if settings.same_as(self._nobody(user, port)[0]) else settings.name
        seen = (names[0],) if jump is not None else (settings.name,)
        jumps, command = self._jumps(there, seen) if jump is None else self._through(jump, seen)
        route = Route(settings.family, _address(settings.bind, "BindAddress"), command, jumps)
        return Way(there.hostname or there.name, there.port or 22, route, identities(settings), named)

    def _there(
        self,
        names: Sequence[str],
        user: str,
        port: int | None,
        where: str,
        *,
        installed: bool = True,
        moves: bool = False,
    ) -> tuple[Said, Said]:
        """What is said of a machine by one of its names, and the same with where it is (`hostname`) and its port.

        `moves`: HostName counts of whichever name it is said.
        """
        for name in names:
            if not ADDRESS.fullmatch(name):
                raise Usage(f"{name!r} is not a host name or address; correct it where the fleet names it")
        nobody, apart = self._nobody(user, port)
        found = self._ask(names, user, port) if apart else [replace(nobody, name=where)]
        itself = next(each for each in found if each.name == where)
        settings = next((each for each in found if not each.same_as(nobody)), itself)
        meant = moves or settings.name == where
        reached = (_address(settings.hostname, "HostName") if meant else None) or where
        there = replace(settings, hostname=reached, port=port or (settings.port if meant or installed else None))
        return settings, there

    def _jumps(self, settings: Said, seen: tuple[str, ...]) -> tuple[tuple[Jump, ...], str | None]:
        """The hops on the way to a machine, the first one first, and the command that leads to that, or there."""
        if not settings.jumps:
            return (), expanded_tokens(settings.command, settings) if settings.command else None
        found: list[Jump] = []
        before: tuple[Jump, ...] = ()
        command: str | None = None
        for place, text in enumerate(settings.jumps):
            named = _parse_jump(text)
            if named.name in seen or len(seen) > _MOST_JUMPS:
                raise Usage(f"ssh_config: ProxyJump: {' through '.join((*seen, named.name))} never ends; correct it")
            [hop] = self._ask((named.name,), named.user, named.port)
            if place == 0:  # which the others are reached through
                before, command = self._jumps(hop, (*seen, named.name))
            found.append(self._jump(hop))
        return (*before, *found), command

    def _through(self, jump: Sequence[str], seen: tuple[str, ...]) -> tuple[tuple[Jump, ...], str | None]:
        """The same of hops that the fleet names; `seen` are the ids of hosts that are reached through them."""
        found: list[Jump] = []
        before: tuple[Jump, ...] = ()
        command: str | None = None
        for place, text in enumerate(jump):
            named = HopName.parse(text)
            host = self.hop(named.name)
            name = host.id if host else named.name
            if name in seen or len(seen) > _MOST_JUMPS:
                raise Usage(f"{seen[0]}: jump: {' through '.join((*seen, name))} never ends; correct it")
            if host is None:
                [hop] = self._ask((name,), named.user, named.port)
            else:
                user, port = named.user or host.user, named.port or host.port
                _, hop = self._there(host.names, user, port, host.names[-1], moves=not host.is_there)
            if place == 0:  # which the others are reached through
                deeper = (*seen, name)
                told = host.jump if host else None
                before, command = self._jumps(hop, deeper) if told is None else self._through(told, deeper)
            found.append(self._jump(hop, host.id if host else None))
        return (*before, *found), command

    def _jump(self, settings: Said, host_id: str | None = None) -> Jump:
        """`host_id` is that of the fleet's host which it is meant to be: its pinned key alone will do."""
        address = _address(settings.hostname, "HostName") or settings.name
        if not USER.fullmatch(settings.user):
            raise Usage(f"ssh_config: User {settings.user!r} of {settings.name} is not a user's name; correct it")
        pinned = self.pin((host_id,) if host_id else (settings.name, address))
        if host_id and pinned is None:
            raise Usage(f"jump: {host_id} has no pinned key")
        return Jump(
            name=host_id or settings.name,
            address=address,
            port=settings.port or 22,
            user=settings.user,
            known_hosts=(pinned[1],) if pinned else known_hosts_files(),
            key_name=pinned[0] if pinned else None,
            identities=identities(settings),
            family=settings.family,
            bind=_address(settings.bind, "BindAddress"),
        )

    def _nobody(self, user: str, port: int | None) -> tuple[Said, bool]:
        """What is said of all names, and whether any two of them may be told apart."""
        options = self._options(user, port)
        with self.answers.of_nobody[tuple(options)] as nobody:
            if nobody.is_empty:
                [text], files = _ssh_g([*options, "-v"], [_NOBODY])
                nobody.value = parse(text, _NOBODY, self._usual), any(map(_tells_names_apart, files))
            return nobody.value

    def _ask(self, names: Sequence[str], user: str | None, port: int | None) -> list[Said]:
        options = self._options(user, port)
        with self.answers.texts[*options, "--", *names] as texts:
            if texts.is_empty:
                texts.value, _ = _ssh_g(options, names)
            return [parse(text, name, self._usual) for name, text in zip(names, texts.value, strict=True)]

    def _options(self, user: str | None, port: int | None) -> list[str]:
        return [*self.options, *(["-l", user] if user else []), *(["-p", str(port)] if port else [])]

    @property
    def _usual(self) -> tuple[str, ...]:
        """The identity files that ssh has of itself."""
        with self.answers.usual as usual:
            if usual.is_empty:
                [text], _ = _ssh_g(["-F", "/dev/null"], [_NOBODY])
                lines = (line.partition(" ") for line in text.splitlines())
                usual.value = tuple(value for keyword, _, value in lines if keyword == "identityfile")
            return usual.value


def _ssh_g(options: Sequence[str], names: Sequence[str]) -> tuple[list[str], list[Path]]:
    """What `ssh -G` prints of each name; and with -v, which files it read."""
    # one process of ours for all of them: a run asks for every host
    commands = (shlex.join(["ssh", "-G", *options, "--", name]) for name in names)
    try:
        done = run(["sh", "-ec", "\necho\n".join(commands)], timeout=DEADLINE)
    except ProcessFailed as error:
        if error.status == 127:
            raise Usage("ssh: no such program on PATH; install OpenSSH's client, or put it on PATH") from error
        words = [line.strip() for line in error.stderr.splitlines() if line.strip() and not line.startswith("debug")]
        raise Usage(f"your ssh_config cannot be read: {'; '.join(words[-2:]) or error}; correct it") from error
    except DeadlineExceeded as error:
        what = f"`ssh -G {names[-1]}` took over {DEADLINE:g} s; look at its `Match exec`"
        raise Usage(f"your ssh_config cannot be read: {what}") from error
    files = [line.split(_READS, 1)[1] for line in done.stderr.splitlines() if _READS in line]
    return done.stdout.split("\n\n"), [Path(file) for file in dict.fromkeys(files)]


def _tells_names_apart(file: Path) -> bool:
    """Whether a file could say different things of two names: most have nothing for any one, and are asked once."""
    try:
        return bool(_APART.search(file.read_text(errors="replace")))
    except OSError:
        return True


def _parse_jump(text: str) -> HopName:
    try:
        return HopName.parse(text)
    except ValueError:
        raise Usage(f"ssh_config: ProxyJump {text!r} is not a [USER@]HOST[:PORT]; correct it") from None


def _address(text: str | None, keyword: str) -> str | None:
    if text is not None and not ADDRESS.fullmatch(text):
        raise Usage(f"ssh_config: {keyword} {text!r} is not a host name or address; correct it")
    return text


def known_hosts_files() -> tuple[Path, ...]:
    """The operator's own, and the system's."""
    ours, system = Path.home() / ".ssh", Path("/etc/ssh")
    return (*(ours / name for name in ("known_hosts", "known_hosts2")), system / "ssh_known_hosts")


def family_of(name: str) -> socket.AddressFamily:
    return _FAMILIES.get(name, socket.AF_UNSPEC)
