"""sudo in front of the program that Nix starts on a machine, and the password that it asks for there.

Nix finds `ssh` on PATH and keeps its stdin for itself. Where sudo asks, an `ssh` of ours comes first on PATH, which
sends the password ahead of what Nix sends. It gets it through a named pipe that nobody else may open: it is in no
file, argument or variable.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from nixherd.errors import FleetError

PIPE = "NIXHERD_SUDO_PIPE"
# Connections that can be made in one go: Nix makes one, and another one where the machine has moved.
_TOLD = 8
_SSH = f"""\
#!/bin/sh
PATH=${{PATH#*:}}
IFS= read -r word <"${PIPE}" || exit 255
unset {PIPE}
{{ printf '%s\\n' "$word"; exec cat; }} | exec ssh "$@"
"""


@dataclass(frozen=True)
class Sudo:
    """How a plain user becomes root on a machine; `password` is what sudo asks for there, None where it does not."""

    password: str | None = field(default=None, repr=False)

    def program(self, name: str) -> str:
        """The command line that starts this program as root. What sudo says is not part of the program's words."""
        options = "-n" if self.password is None else "-S -k --prompt="
        return f"sudo {options} -H {name}"


@contextmanager
def told(sudo: Sudo | None) -> Iterator[dict[str, str]]:
    """The environment of a local program that reaches the machine through `ssh`: there sudo is told the password."""
    if sudo is None or sudo.password is None:
        yield {}
        return
    with tempfile.TemporaryDirectory(prefix="nixherd-") as directory:
        ssh, pipe = Path(directory) / "ssh", Path(directory) / "pipe"
        ssh.write_text(_SSH)
        ssh.chmod(0o700)
        if not os.access(ssh, os.X_OK):  # another ssh would be taken, and sudo wait for ever
            raise FleetError(f"{directory}: no program can be run from there; set TMPDIR to where one can")
        os.mkfifo(pipe, 0o600)
        handle = os.open(pipe, os.O_RDWR)  # for both: neither waits for the other
        try:
            os.write(handle, f"{sudo.password}\n".encode() * _TOLD)
            yield {"PATH": os.pathsep.join([directory, os.environ.get("PATH", os.defpath)]), PIPE: str(pipe)}
        finally:
            os.close(handle)
