"""`nixherd new web`, in a process that may be killed: the Nth effect is its last.

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


def main(fleet: str, last: str | None = None) -> None:
    own = Path(fleet).parent / "me.pub"
    own.write_text(key("admin").public + "\n")
    words = ["--vmid", "150", "--key-file", str(own), "--state-version", "25.11", "--secret", "x", "--no-eval", "--yes"]
    killer = Killer(int(last) if last else None)
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
