"""The machine that we run on, where it is the very host that is meant: what is done there needs no SSH."""

import os
from pathlib import Path

from nixherd.errors import Refused
from nixherd.fleet.models import Host
from nixherd.ssh import keys
from nixherd.ssh.keys import parse_public_key

HOST_KEY_FILE = Path(keys.HOST_KEY_FILE)


def require_is_this(host: Host, pinned: str | None) -> None:
    """Refused unless this machine is called as that host is, and its SSH host key, where both have one, is the pinned
    one: another machine's system is not for it."""
    name = os.uname().nodename.partition(".")[0]
    if name != host.hostname.partition(".")[0]:
        raise Refused(
            f"local: this machine is called {name}, and {host.id} in hosts.nix {host.hostname}; name the host that it "
            "is, or go there by SSH, without local"
        )
    own = _own_key()
    if pinned and own and parse_public_key(pinned).blob != own:
        raise Refused(
            f"local: this machine is called {name}, but its {HOST_KEY_FILE} is not the publicKey of {host.id} in "
            "hosts.nix; correct the wrong one of them"
        )


def _own_key() -> str | None:
    try:
        return parse_public_key(HOST_KEY_FILE.read_text().strip()).blob
    except (OSError, ValueError):
        return None
