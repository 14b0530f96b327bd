"""Links outside of a run of pyinfra, for who only asks machines: all at once, from threads of this process."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self

import paramiko
from paramiko import Transport

from nixherd.base.errors import Usage
from nixherd.base.files import expanded
from nixherd.base.names import USER, is_a
from nixherd.fleet.groups import check_group_data, for_all, names_in
from nixherd.fleet.models import Host
from nixherd.fleet.place import personal_data
from nixherd.link.client import Keys, PinnedClient, load
from nixherd.link.failures import require_run
from nixherd.link.link import Link, Surroundings
from nixherd.link.opening import opened
from nixherd.locate.reach import Hints
from nixherd.ssh.destination import Destination

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
_PYINFRAS = {
    "ssh_hostname",
    "ssh_password",
    "ssh_key_password",
    "ssh_paramiko_connect_kwargs",
    "host_key",
    "local",
    "may_install",
    "ask_hypervisor",
}


@dataclass(frozen=True)
class Login:
    """What the operator says of logging in, the same for all hosts; `key` is the one that `ssh_key` names."""

    data: Mapping[str, Any]
    key: paramiko.PKey | None = None

    @classmethod
    def said_in(cls, directories: Sequence[Path]) -> "Login | None":
        """What group data in these directories say; None where pyinfra has to make something of it.

        That is where they say it of a group, a password, or a key that is read with one. Usage for what cannot be
        meant.
        """
        data: dict[str, Any] = {**_USUAL}
        for directory in directories:
            for file in directory.glob("*.py"):
                is_for_all = file.name == "all.py"
                if not is_for_all and directory == personal_data():
                    continue  # which pyinfra never reads
                names = set(names_in(file))
                check_group_data(names, str(file))
                if names & (_PYINFRAS if is_for_all else {*_USUAL, *_PYINFRAS}):
                    return None
            said_of_all = {name: value for name, value in for_all([directory]).items() if name in data}
            for name, value in said_of_all.items():
                if value is not None and (why := _why_not(name, value)):
                    raise Usage(f"{directory / 'all.py'}: {name} = {value!r}: {why}")
            data |= {name: value for name, value in said_of_all.items() if value is not None}
        if data["ssh_key"] is None:
            return cls(data)
        key = next(load(expanded(data["ssh_key"])), None)
        return cls(data, key) if key else None


def _why_not(name: str, value: Any) -> str | None:
    """Why a value cannot be meant by a name of _USUAL, and what to write."""
    if name == "ssh_port":
        is_one = isinstance(value, int) and not isinstance(value, bool) and 0 < value < 65536
        return None if is_one else "that is not a port; write a number up to 65535"
    if isinstance(_USUAL[name], bool):
        return None if isinstance(value, bool) else "write True or False"
    if name == "ssh_user":
        return None if is_a(USER, str(value)) else "that is not a user's name"
    return None if isinstance(value, str) else "write a text"


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
