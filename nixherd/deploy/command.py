"""A command of the operator's on a machine: what it printed, and with which status it ended there."""

from dataclasses import dataclass

from nixherd.base.errors import EndUnknown, FleetError, NotSent, Unforeseen
from nixherd.base.reasons import reason
from nixherd.deploy.machine import Machine

# The status is on a line of its own after what the command prints: pyinfra tells success from failure alone.
_SCRIPT = "(\n{line}\n)\nprintf '\\n%s\\n' $?"


@dataclass(frozen=True)
class Said:
    """What a command printed, and its status there: above 128 it is the signal that ended it, and 128."""

    status: int
    stdout: str
    stderr: str


def run_command(machine: Machine, line: str, *, sudo: bool, deadline: float) -> Said:
    """Run a line of the shell on the machine.

    FleetError when it was not sent; EndUnknown when it was, and its end was not seen.
    """
    try:
        done = machine.run(_SCRIPT.format(line=line), sudo=sudo, deadline=deadline)
    except Unforeseen:
        raise
    except NotSent as error:
        raise FleetError(f"{machine.id}: it was not told: {error}") from error
    except OSError as error:
        raise EndUnknown(f"{machine.id}: how the command ended is not known, it may go on there: {error}") from error
    printed, _, status = done.stdout.rstrip("\n").rpartition("\n")
    if not status.isdecimal():  # a shell that ended before it came so far, or sudo instead of the command
        why = reason(done.stderr) or "no reason was given"
        raise FleetError(f"{machine.id}: the command did not come to its end: {why}")
    return Said(int(status), printed.removesuffix("\n"), done.stderr)
