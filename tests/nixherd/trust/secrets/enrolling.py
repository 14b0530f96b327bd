"""Enrols `dev` as deploys/post_provision.py does, in a process that may be killed: the Nth effect is its last.

    python -m tests.nixherd.trust.secrets.enrolling FLEET IDENTITY STATE [N]

Effects are what others could see of it: a file written, synced, linked or renamed, a program begun or ended. Prints how
many there were.
"""

import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nixherd.base import process
from nixherd.fleet.changeset import changing
from nixherd.fleet.load import load_fleet
from nixherd.trust.enrol import Wanted, documented, protected, publish
from nixherd.trust.recipients import trusted
from nixherd.trust.secrets.sops import as_host, operator
from nixherd.trust.secrets.store import Secrets
from tests.nixherd.trust.secrets.keys import key
from tests.nixherd.trust.secrets.repositories import admission
from tests.shared import Shared


class Killer:
    def __init__(self, last: int | None) -> None:
        self.count, self.last = 0, last
        self._one = threading.Lock()

    def effect(self) -> None:
        with self._one:  # several threads have effects
            self.count += 1
            if self.count == self.last:
                os.kill(os.getpid(), signal.SIGKILL)

    def around(self, owner: Any, name: str) -> None:
        original: Callable[..., Any] = getattr(owner, name)

        def counted(*words: Any, **options: Any) -> Any:
            self.effect()
            result = original(*words, **options)
            self.effect()
            return result

        setattr(owner, name, counted)


def main(fleet: str, identity: str, state: str, last: str | None = None) -> None:
    os.environ["XDG_STATE_HOME"] = state
    root, killer = Path(fleet), Killer(int(last) if last else None)
    shared = Shared(load_fleet(root), Path("/nonexistent"))
    if shared.keys.held("dev") is None:
        shared.run.state_of("dev").note("ssh_host_ed25519_key", key("dev").private_openssh)
    for owner, name in (
        *((Path, each) for each in ("replace", "write_bytes", "unlink")),
        *((os, each) for each in ("link", "fsync", "replace", "unlink")),
        *((process, "_start"), (shutil, "rmtree")),
    ):
        killer.around(owner, name)
    with changing(root) as changes:
        changes.resume(print)
        about = load_fleet(root)
        wanted = trusted(Wanted(about, Secrets.load(root)), about.hosts["dev"], key("dev").public, admission())
        wanted = documented(protected(wanted, "dev"), "docs/machines.md")
        publish(
            changes,
            wanted,
            "fleet: dev joins",
            sops=lambda: operator(shared.run, Path(identity)),
            as_host=as_host(shared.run, shared.keys, "dev"),
            say=lambda line: None,
        )
    print(killer.count)


if __name__ == "__main__":
    main(*sys.argv[1:])
