"""Links outside of a run of pyinfra, for who only asks machines: all at once, from threads of this process."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self

import paramiko
from paramiko import SSHException, Transport

from nixherd.base.becoming_root import Become
from nixherd.base.errors import FleetError, NotSent
from nixherd.base.files import expanded
from nixherd.base.process import Completed
from nixherd.deploy.machine import ANSWER_DEADLINE, COMMAND_DEADLINE
from nixherd.fleet.groups import for_all, names_in
from nixherd.fleet.models import Access, Host
from nixherd.link.client import Keys, PinnedClient, load
from nixherd.link.failures import require_run
from nixherd.link.link import Link, Surroundings
from nixherd.link.opening import opened
from nixherd.locate.reach import Hints
from nixherd.ssh.destination import Destination
from nixherd.ssh.login_shell import answered

# What pyinfra takes for data that nobody gave.
_USUAL = {
    "ssh_user": None,
    "ssh_port": None,
    "ssh_key": None,
    "ssh_config_file": None,
    "ssh_jump": None,
    "ssh_look_for_keys": True,
    "ssh_allow_agent": True,
}
# What else changes how a machine is reached, which is pyinfra's to make something of.
_PYINFRAS = (
    "ssh_hostname",
    "ssh_password",
    "ssh_key_password",
    "ssh_paramiko_connect_kwargs",
    "host_key",
    "local",
    "may_install",
    "ask_hypervisor",
)
MOST = 4 << 20  # bytes of an answer that are read


@dataclass(frozen=True)
class Login:
    """What the operator says of logging in, the same for all hosts; `key` is the one that `ssh_key` names."""

    data: Mapping[str, Any]
    key: paramiko.PKey | None = None

    @classmethod
    def said_in(cls, directories: list[Path]) -> "Login | None":
        """What group data in these directories say; None where pyinfra has to make something of it.

        That is where they say it of a group, a password, or a key that is read with one.
        """
        special = {*_USUAL, *_PYINFRAS}
        for directory in directories:
            for file in directory.glob("*.py"):
                names = set(names_in(file))
                if names & set(_PYINFRAS) or (file.name != "all.py" and names & special):
                    return None
        values = for_all(directories)
        data = {name: usual if values.get(name) is None else values[name] for name, usual in _USUAL.items()}
        if data["ssh_key"] is None:
            return cls(data)
        key = next(load(expanded(str(data["ssh_key"]))), None)
        return cls(data, key) if key else None


class PlainLink(Link):
    """A link to the installed system, which only asks."""

    def __init__(
        self,
        context: Surroundings,
        host: Host,
        login: Login,
        *,
        before: Mapping[str, str] | None = None,
        tell: Callable[[str], None] = lambda text: None,
    ) -> None:
        """`before`: where hosts answered before, which is tried first."""
        self._context, self._host, self._login = context, host, login
        self._before, self._tell = before or {}, tell
        self.data = {**login.data}

    @property
    def context(self) -> Surroundings:
        return self._context

    @property
    def fleet_host(self) -> Host:
        return self._host

    @property
    def hints(self) -> Hints:
        return Hints()

    @property
    def seen_at(self) -> str | None:
        return self._before.get(self._host.id)

    def given(self, name: str) -> Any:
        return self._login.data.get(name)

    def tell(self, text: str) -> None:
        self._tell(text)

    def beside(self, host: Host) -> Self:
        return type(self)(self._context, host, self._login, before=self._before, tell=self._tell)

    @contextmanager
    def opened(
        self, to: Destination, who: str, at: str, transport: Callable[..., Transport], timeout: float
    ) -> Iterator[PinnedClient]:
        keys = Keys(to.user, to.identities, self._login.key)
        heard = partial(require_run, self._host.id, to.user)
        how: dict[str, Any] = {"transport": transport, "timeout": timeout}
        with opened(to, who, at, keys_for=lambda to: keys, heard=heard, **how) as client:
            yield client


class LinkedMachine:
    """Implements `nixherd.deploy.machine.Asked` on a link that is connected."""

    def __init__(self, link: Link) -> None:
        self._link, self.id = link, link.fleet_host.id

    @property
    def access(self) -> Access:
        return self._link.access

    @property
    def become(self) -> Become:
        return self._link.become

    def run(self, script: str, *, deadline: float = COMMAND_DEADLINE) -> Completed:
        done = self._client.ask(script, MOST, deadline)
        if done is None:
            raise FleetError(f"{self.id}: it answered with more than {MOST >> 20} MiB; look at it")
        return done

    def run_forced(self, words: str, *, deadline: float = ANSWER_DEADLINE) -> Completed:
        try:
            out, err, status = self._client.say(words, deadline)
        except (SSHException, EOFError) as error:
            raise OSError(f"the connection broke: {str(error) or 'no answer'}") from error
        answer, _ = answered(out.splitlines())
        return Completed("\n".join(answer), err, status)

    @property
    def _client(self) -> PinnedClient:
        if self._link.client is None:
            raise NotSent(f"{self.id}: not connected")
        return self._link.client
