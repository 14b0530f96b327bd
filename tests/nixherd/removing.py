"""Changes a file of a repository and removes a directory, in a process that may be killed at its Nth effect.

python -m tests.nixherd.removing FLEET STATE [N]
"""

import os
import shutil
import sys
from pathlib import Path

from nixherd.base import process
from nixherd.fleet.changeset import changing
from tests.nixherd.trust.secrets.enrolling import Killer

GONE = ("hosts/web/a.nix", "hosts/web/data/b")


def main(fleet: str, state: str, last: str | None = None) -> None:
    os.environ["XDG_STATE_HOME"] = state
    root, killer = Path(fleet), Killer(int(last) if last else None)
    for owner, name in (
        *((Path, each) for each in ("replace", "write_bytes", "unlink")),
        *((os, each) for each in ("link", "fsync", "replace", "unlink", "rmdir")),
        *((process, "_start"), (shutil, "rmtree")),
    ):
        killer.around(owner, name)
    with changing(root) as changes:
        if changes.resume(print) is None:
            seen = {path: changes.tree.read(path) for path in ("hosts.nix", *GONE)}
            changes.stage("hosts.nix", b"{ }\n")
            changes.publish(seen, "web retires", removed=GONE, commit=True, say=lambda line: None)
    print(killer.count)


if __name__ == "__main__":
    main(*sys.argv[1:])
