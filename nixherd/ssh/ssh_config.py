"""What is taken from the operator's ssh_config: a closed list, as `ssh -G` reads it, and nothing else.

HostName, Port, ProxyJump, ProxyCommand, AddressFamily, BindAddress, IdentityFile, CertificateFile, IdentityAgent and
IdentitiesOnly. `ssh -G` connects to nothing; it does run what the operator's own `Match exec` says. The connection is
then made under a configuration of ours (`nixherd.ssh.destination`), so that no other setting has any part in it.

Hops are verified by a key that the fleet pins, else by the operator's known_hosts; never on trust.
"""

import getpass
import os
import pwd
import re
import shlex
import socket
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from nixherd.base.errors import DeadlineExceeded, ProcessFailed, Usage
from nixherd.base.files import expanded
from nixherd.base.process import run
from nixherd.base.waiting import Once, OncePer
from nixherd.ssh.destination import Identities, Jump, Route

DEADLINE = 30.0  # seconds for `ssh -G`: a `Match exec` may ask the network
USUAL_KEYS = ("id_ed25519", "id_ecdsa", "id_rsa")
SYSTEM_CONFIG = Path("/etc/ssh/ssh_config")
_MOST_JUMPS = 8
# Names that no machine has: what is said of all, and what ssh says of itself.
_NOBODY = "nobody.nixherd.invalid"
_ADDRESS = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*(%[A-Za-z0-9_.-]+)?", re.ASCII)
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@+-]*\$?", re.ASCII)
# What `ssh -v` says of each file; and what in it goes by the name: a block that is not for all, or a token.
_READS = "Reading configuration data "
_APART = re.compile(r"^[ \t]*(?:match\b|host\b(?![ \t]*=?[ \t]*\*[ \t]*$)|[^#\s][^\n]*%)", re.IGNORECASE | re.MULTILINE)
_JUMP = re.compile(r"(?:ssh://)?(?:(?P<user>.+)@)?(?:\[(?P<six>[^]]+)\]|(?P<host>[^:\[\]]+))(?::(?P<port>\d+))?/?")
_FAMILIES = {"any": socket.AF_UNSPEC, "inet": socket.AF_INET, "inet6": socket.AF_INET6}


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
    """The operator's ssh_config. `answers` keeps what ssh said already; `pin` knows the fleet's keys."""

    options: tuple[str, ...]
    answers: Answers
    pin: Pin

    def way_to(
        self,
        names: Sequence[str],
        user: str,
        port: int | None = None,
        *,
        address: str | None = None,
        installed: bool = True,
    ) -> Way:
        """The way to a machine: what is said of the first of its names of which anything is said.

        `address`, one of them and else the last, is where it is. What is said of another one does not move it: HostName
        has no part then, nor has Port before it is `installed`, when another system listens there. Usage when the
        configuration cannot be read, or says what cannot be followed.
        """
        where = address or names[-1]
        for name in names:
            if not _ADDRESS.fullmatch(name):
                raise Usage(f"{name!r} is not a host name or address; correct it where the fleet names it")
        nobody, apart = self._nobody(user, port)
        found = self._ask(names, user, port) if apart else [replace(nobody, name=where)]
        itself = next(each for each in found if each.name == where)
        settings = next((each for each in found if not each.same_as(nobody)), itself)
        named = None if settings.same_as(nobody) else settings.name
        meant = settings.name == where
        reached = (_address(settings.hostname, "HostName") if meant else None) or where
        there = replace(settings, hostname=reached, port=port or (settings.port if meant or installed else None))
        jumps, command = self._jumps(there, (settings.name,))
        route = Route(settings.family, _address(settings.bind, "BindAddress"), command, jumps)
        return Way(reached, there.port or 22, route, identities(settings), named)

    def _jumps(self, settings: Said, seen: tuple[str, ...]) -> tuple[tuple[Jump, ...], str | None]:
        """The hops on the way to a machine, the first one first, and the command that leads to that, or there."""
        if not settings.jumps:
            return (), _expanded(settings.command, settings) if settings.command else None
        found: list[Jump] = []
        before: tuple[Jump, ...] = ()
        command: str | None = None
        for place, text in enumerate(settings.jumps):
            user, name, port = _parse_jump(text)
            if name in seen or len(seen) > _MOST_JUMPS:
                raise Usage(f"ssh_config: ProxyJump: {' through '.join((*seen, name))} never ends; correct it")
            [hop] = self._ask((name,), user, port)
            if place == 0:  # which the others are reached through
                before, command = self._jumps(hop, (*seen, name))
            found.append(self._jump(hop))
        return (*before, *found), command

    def _jump(self, settings: Said) -> Jump:
        address = _address(settings.hostname, "HostName") or settings.name
        if not _USER.fullmatch(settings.user):
            raise Usage(f"ssh_config: User {settings.user!r} of {settings.name} is not a user's name; correct it")
        pinned = self.pin((settings.name, address))
        return Jump(
            name=settings.name,
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


def _parse_jump(text: str) -> tuple[str | None, str, int | None]:
    """User, name and port of a hop as ProxyJump has it."""
    parts = _JUMP.fullmatch(text.strip())
    name = (parts["six"] or parts["host"]) if parts else ""
    if parts is None or not _ADDRESS.fullmatch(name) or (parts["user"] and not _USER.fullmatch(parts["user"])):
        raise Usage(f"ssh_config: ProxyJump {text!r} is not a [USER@]HOST[:PORT]; correct it")
    return parts["user"], name, int(parts["port"]) if parts["port"] else None


def _address(text: str | None, keyword: str) -> str | None:
    if text is not None and not _ADDRESS.fullmatch(text):
        raise Usage(f"ssh_config: {keyword} {text!r} is not a host name or address; correct it")
    return text


def known_hosts_files() -> tuple[Path, ...]:
    """The operator's own, and the system's."""
    ours, system = Path.home() / ".ssh", Path("/etc/ssh")
    return (*(ours / name for name in ("known_hosts", "known_hosts2")), system / "ssh_known_hosts")


def usual_keys() -> tuple[Path, ...]:
    """Those that there are in $HOME; OpenSSH itself looks in the password database's."""
    return tuple(path for name in USUAL_KEYS if (path := Path.home() / ".ssh" / name).exists())


def identities(settings: Said) -> Identities:
    """What is offered there: the files that are named, else the usual ones; and where the agent is."""

    def path(text: str) -> Path:
        return expanded(_variables(_expanded(text, settings)))

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


def _expanded(text: str, settings: Said) -> str:
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


def family_of(name: str) -> socket.AddressFamily:
    return _FAMILIES.get(name, socket.AF_UNSPEC)
