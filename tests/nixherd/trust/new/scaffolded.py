"""`nixherd new web`, in a process that may be killed: the Nth effect while it is half published is its last.

python -m tests.nixherd.trust.new.scaffolded FLEET [N]
"""

import os
import shutil
import sys
from pathlib import Path

from nixherd.base import process
from nixherd.cli.main import run
from tests.nixherd.trust.secrets.enrolling import Killer
from tests.nixherd.trust.secrets.keys import key


class Publishing(Killer):
    """Effects count from when the first new file is in place until the file that lists it is replaced."""

    def __init__(self, fleet: Path, last: int | None) -> None:
        super().__init__(last)
        self._new, self._listing = fleet / "hosts/web/configuration.nix", fleet / "vms/definitions.nix"
        self._before = self._listing.stat().st_ino

    def effect(self) -> None:
        if self._new.exists() and self._listing.stat().st_ino == self._before:
            super().effect()


def main(fleet: str, last: str | None = None) -> None:
    own = Path(fleet).parent / "me.pub"
    own.write_text(key("admin").public + "\n")
    words = ["--vmid", "150", "--key-file", str(own), "--state-version", "25.11", "--secret", "x", "--no-eval", "--yes"]
    killer = Publishing(Path(fleet), int(last) if last else None)
    for owner, name in (
        *((Path, each) for each in ("replace", "write_bytes", "unlink")),
        *((os, each) for each in ("mkdir", "rmdir", "link", "fsync", "replace", "unlink")),
        *((process, "_start"), (shutil, "rmtree")),
    ):
        killer.around(owner, name)
    status = run(["--fleet", fleet, "--token-file", f"{fleet}-token", "new", "web", *words, "--json"])
    print(killer.count)
    sys.exit(status)


if __name__ == "__main__":
    main(*sys.argv[1:])
