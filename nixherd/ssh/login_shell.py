"""Commands and answers that pass through any login shell unharmed, and jobs that outlive a connection. Pure."""

import re
import secrets
import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from nixherd.base.terminal import one_line, visible

MOST = 131_071
"""Bytes that Linux lets one argument have (MAX_ARG_STRLEN in linux/binfmts.h), which a command is."""
NOT_RUN = 126
"""The status of a command that the login shell did not run."""
_KEPT = 20  # lines of what a login shell prints
_SHOWN = 200  # characters of it
# $1: the mark, $2: the script. It stands between single quotes, and has nothing that csh or fish change there.
_RUN = (
    "export SHLVL=1; "  # else a bash in the script takes itself for the one that sshd has started, and reads .bashrc
    "exec 3>&2 2>/dev/null; "  # what this shell has to say of a script that was killed is not the script's
    'printf "\\n%s 1 begin %s:%s\\n" "$1" "$SHELL" "$HOME"; printf "\\n%s 2 begin\\n" "$1" >&3; '
    '(exec /bin/sh -c "$(printf %b "$2")" 2>&3 3>&-); s=$?; '
    'printf "\\n%s 1 end %s\\n" "$1" $s; printf "\\n%s 2 end\\n" "$1" >&3; exit $s'
)
# Bytes for printf's %b: printable ASCII as it is, but for what a shell may take otherwise between single quotes.
_ENCODED = [chr(byte) if 32 <= byte < 127 and chr(byte) not in "'!\\" else f"\\0{byte:03o}" for byte in range(256)]
# What each shell reads before any command that sshd gives it, below the user's home, and how its own is kept quiet.
_FILES = {
    "bash": (
        ".bashrc",
        "guard it with `[[ $- == *i* ]] || return` (Home Manager: programs.bash.initExtra, not bashrcExtra)",
    ),
    "zsh": (".zshenv", "move it to .zshrc, which interactive shells alone read"),
    "fish": (".config/fish/config.fish", "put it between `if status is-interactive` and `end`"),
    "tcsh": (".tcshrc or .cshrc", "guard it with `if (! $?prompt) exit`"),
    "csh": (".cshrc", "guard it with `if (! $?prompt) exit`"),
}
# What sshd says of a shell that it could not start.
_STARTED = re.compile(r"(/[^:]+): (No such file or directory|Permission denied|Exec format error)$")

_PROTOCOL = re.compile(r"protocol=\d+")


class TooLong(ValueError):
    """A command is longer than any machine takes."""


@dataclass(frozen=True)
class Command:
    """One command for a login shell; `text` is what sshd is asked to run."""

    script: str
    mark: str = field(default_factory=lambda: f"nixherd-{secrets.token_hex(8)}")

    @property
    def text(self) -> str:
        """TooLong when no machine takes it."""
        encoded = "".join(map(_ENCODED.__getitem__, self.script.encode(errors="surrogateescape")))
        text = f"exec /bin/sh -c '{_RUN}' nixherd {self.mark} '{encoded}'"
        if len(text) > MOST:
            raise TooLong(f"a command of {len(self.script)} characters is longer than a machine takes; use a file")
        return text


@dataclass
class Answer:
    """What comes back for one command, line by line; `output` of each stream gives what the command itself printed."""

    mark: str
    shell: str | None = None
    """the login shell, as its machine says"""
    home: str = ""
    status: int | None = None
    """with which the command ended, None where that was not said"""
    noise: list[str] = field(default_factory=list)
    """what the login shell printed, up to a bound"""
    prints_on_stdout: bool = False

    def output(self, stream: int, lines: Iterable[str]) -> Iterator[str]:
        """The command's own lines of stdout (1) or stderr (2), as they come; the others are kept as noise."""
        ours = f"{self.mark} {stream} "
        inside = False
        held: str | None = None
        for raw in lines:
            line = raw.removesuffix("\n")
            if line.startswith(f"{self.mark} "):  # also one of the other stream, where a terminal makes them one
                held = None
                if line.startswith(ours):
                    inside = self._marked(line.removeprefix(ours).rstrip("\r"))
                continue
            if held is not None:
                yield held
                held = None
            if not inside:
                self._heard(line, stream)
            elif line.strip("\r"):
                yield line
            else:
                held = line  # the command's own, or what stands before a mark
        if held is not None:
            yield held

    def _marked(self, words: str) -> bool:
        """Take in a mark; whether the command's output follows."""
        kind, _, rest = words.partition(" ")
        if kind == "begin":
            if rest:
                self.shell, _, self.home = rest.partition(":")
            return True
        if rest.isdecimal():
            self.status = int(rest)
        return False

    def _heard(self, line: str, stream: int) -> None:
        if not line.strip():
            return
        self.prints_on_stdout = self.prints_on_stdout or stream == 1
        if len(self.noise) < _KEPT:
            self.noise.append(line)

    @property
    def was_run(self) -> bool:
        """Whether the login shell has passed the command on."""
        return self.shell is not None

    def ended(self, status: int) -> int:
        """The command's status, where sshd says that its shell ended with `status` (-1: nothing)."""
        if self.status is not None:
            return self.status
        if self.was_run:
            return status or -1  # it was killed before it came to its end
        return status or NOT_RUN

    @property
    def shown(self) -> str:
        """What the login shell printed, for people."""
        text = one_line("\n".join(self.noise))
        return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"

    @property
    def advice(self) -> str:
        """Which file probably prints, and what to do about it."""
        name = PurePosixPath(self.shell or "sh").name
        file, remedy = _FILES.get(name, (None, "print only where there is a terminal: `[ -t 1 ]`"))
        if file is None:
            return f"a file that its login shell {self.shell or 'there'} reads, or ~/.ssh/rc, prints it: {remedy}"
        return f"{visible(self.home).rstrip('/')}/{file}, or what it reads, prints it in every command: {remedy}"

    @property
    def warning(self) -> str:
        """That the login shell prints, for the operator."""
        return f'the login shell there prints "{self.shown}", which was set aside; {self.advice}'

    def not_run(self, user: str) -> str:
        """Why the command was not run."""
        if broken := next(filter(None, map(_STARTED.match, self.noise)), None):
            shell, why = broken.groups()
            problem = f"the login shell of {user}, {visible(shell)}, cannot be started there ({visible(why)})"
        else:
            words = f'"{self.shown}"' if self.noise else "nothing"
            problem = f"the login shell of {user} runs no command there, and says {words}"
        remedy = f"users.users.{user}.shell in its configuration, or `chsh -s /bin/sh {user}` on its console"
        return f"{problem}; give {user} one that is there and runs commands: {remedy}"

    def breaks(self, what: str) -> str | None:
        """Why a protocol on stdout that a program speaks through the login shell cannot work; None where it can."""
        if not self.prints_on_stdout:
            return None
        return f'the login shell there prints "{self.shown}" on stdout, which breaks {what}; {self.advice}'


def answered(lines: Sequence[str]) -> tuple[list[str], list[str]]:
    """What a machine answers to a forced command, which begins with `protocol=`, and the noise before it."""
    begin = next((number for number, line in enumerate(lines) if _PROTOCOL.fullmatch(line)), 0)
    return list(lines[begin:]), [line for line in lines[:begin] if line.strip()][:_KEPT]


JOBS = "/run/nixherd"
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
        return f"{JOBS}/{self.name}.{suffix}"

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
            f"mkdir -p -m 0700 {JOBS} && "
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
