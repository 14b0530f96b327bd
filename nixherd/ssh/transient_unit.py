"""Long work on a machine, detached from the connection that started it: pure shell texts.

A job is a transient systemd unit of a fixed name, so it goes on when we are killed or the network moves, and
two of one name exclude each other. Its end is a file `NAME.done` that holds its key and exit status: asked for
again with the same key, a job that ended well is not run again.
"""

import shlex
from dataclasses import dataclass

DIRECTORY = "/run/nixherd"
RUNNING, ENDED = "running", "none"  # what a look says of a job that goes on, or was ended before it could note anything
LOOK = 10  # seconds that one look at a running job waits for its end


@dataclass(frozen=True)
class Job:
    """`key` says what is done (a store path, say); `script` is run by sh with -e; `deadline` is in seconds."""

    name: str
    key: str
    script: str
    deadline: int

    @property
    def unit(self) -> str:
        return f"nixherd-{self.name}.service"

    @property
    def well(self) -> str:
        """What NAME.done holds after a good end."""
        return f"{self.key} 0"

    def _file(self, suffix: str) -> str:
        return f"{DIRECTORY}/{self.name}.{suffix}"

    @property
    def body(self) -> str:
        """What the unit runs: log, do, note the end atomically."""
        done, log = self._file("done"), self._file("log")
        return (
            f"exec >{log} 2>&1 </dev/null\n"
            f"rm -f {done}\n"
            f"sh -ec {shlex.quote(self.script)}\n"
            f"status=$?\n"
            f"printf '%s %s' {shlex.quote(self.key)} $status >{done}.new && mv {done}.new {done}\n"
        )

    @property
    def start(self) -> str:
        """Starts the job with its body on stdin, unless it runs already or has ended well."""
        done, script = self._file("done"), self._file("sh")
        return (
            f"mkdir -p -m 0700 {DIRECTORY} && "
            f"if systemctl is-active --quiet {self.unit}; then cat >/dev/null; "
            f'elif [ "$(cat {done} 2>/dev/null)" = {shlex.quote(self.well)} ]; then cat >/dev/null; '
            f"else rm -f {done}; cat >{script} && systemctl reset-failed {self.unit} 2>/dev/null; "
            f'systemd-run --quiet --collect --unit={self.unit} -E PATH="$PATH" '
            f"-p RuntimeMaxSec={self.deadline} sh {script}; fi"
        )

    @property
    def look(self) -> str:
        """Waits a little; prints `running` or what NAME.done holds, then the last lines of the log."""
        active = f"systemctl is-active --quiet {self.unit}"
        return (
            f"i=0; while {active} && [ $i -lt {LOOK * 10} ]; do sleep 0.1; i=$((i+1)); done; "
            f"if {active}; then echo {RUNNING}; "
            f"else cat {self._file('done')} 2>/dev/null || printf %s {ENDED}; echo; fi; "
            f"tail -n 40 {self._file('log')} 2>/dev/null; true"
        )
