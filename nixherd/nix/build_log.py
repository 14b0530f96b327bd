"""How far a build is, from Nix's own log (`--log-format internal-json`): what builds and is copied, how many are left.

The log is lines `@nix {"action": "start" | "result" | "stop", "id": …, "type": …, "fields": […], …}`. Source: Nix,
src/libutil/include/nix/util/logging.hh (ActivityType, ResultType).
"""

import json
import math
import re
import time
from dataclasses import dataclass, field
from typing import Any

from nixherd.errors import UNFORESEEN

_COPIES, _BUILDS, _BUILD = 103, 104, 105  # activities
_LOG_LINE, _PROGRESS = 101, 105  # results
PAUSE = 1.0  # seconds between two lines for people
_DRV = re.compile(r"/nix/store/[0-9a-z]{32}-(.+?)\.drv")


@dataclass
class BuildProgress:
    """Fed with the lines of a log; some are worth telling. `log` is the end of the builders' output."""

    log: list[str] = field(default_factory=list)
    _kinds: dict[Any, Any] = field(default_factory=dict)
    _names: dict[Any, str] = field(default_factory=dict)
    _counts: dict[int, tuple[int, int]] = field(default_factory=dict)
    _said: str = ""
    _told: float = -math.inf

    def feed(self, line: str) -> str | None:
        """A line for people, when this one changes what there is to say."""
        if not line.startswith("@nix "):
            return None
        try:
            self._take(json.loads(line[5:]))
        except UNFORESEEN:  # in another form than we know; it says nothing of how the build ends
            return None
        said = self._words()
        if said == self._said or time.monotonic() - self._told < PAUSE:
            return None
        self._said, self._told = said, time.monotonic()
        return said

    def _take(self, entry: dict[str, Any]) -> None:
        fields = entry.get("fields") or []
        number, kind = entry.get("id"), entry.get("type")
        match entry.get("action"):
            case "start":
                self._kinds[number] = kind
                if kind == _BUILD and fields and (drv := _DRV.match(str(fields[0]))):
                    self._names[number] = drv[1]
            case "stop":
                self._kinds.pop(number, None)
                self._names.pop(number, None)
            case "result" if kind == _PROGRESS and self._kinds.get(number) in (_COPIES, _BUILDS) and fields[1:2] != [0]:
                self._counts[self._kinds[number]] = (int(fields[0]), int(fields[1]))
            case "result" if kind == _LOG_LINE and fields:
                self.log = [*self.log[-49:], str(fields[0])]

    def _words(self) -> str:
        parts = []
        for kind, verb in ((_BUILDS, "built"), (_COPIES, "copied")):
            if kind in self._counts:
                done, expected = self._counts[kind]
                parts.append(f"{done} of {expected} {verb}")
        if self._names:
            names = list(self._names.values())
            parts.append(f"building {', '.join(names[:3])}{' …' if len(names) > 3 else ''}")
        return ", ".join(parts)
