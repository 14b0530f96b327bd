"""Why a task failed: its end says so, or its log alone, as where a backup ends with `job errors`. Pure."""

import re
from collections.abc import Iterable

# Ends that tell nothing of what happened.
_SILENT = frozenset(("job errors", "unexpected status", "received interrupt", "interrupted by signal"))
_GUEST = re.compile(r"Backup of (?:VM|CT) \d+ failed - ")


def reason(exitstatus: str, log: Iterable[str]) -> str:
    """What a failed task's end says; where that is nothing, the errors in its log, each once.

    A backup's log says an error when it happens, and once more with the guest that it was the end of.
    """
    if exitstatus not in _SILENT:
        return exitstatus
    errors = list(dict.fromkeys(line.partition("ERROR: ")[2] for line in log if line.startswith("ERROR: ")))
    ends = [error for error in errors if _GUEST.match(error)]
    return "; ".join(ends or errors) or exitstatus
