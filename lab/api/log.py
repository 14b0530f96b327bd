"""The request log: one JSON line each, without secrets."""

import json
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_SECRET = {"cipassword", "password", "new-password", "otp", "value", "ticket", "tfa-challenge"}
_CONTENT = {"input-data", "content"}


def mask(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters for display: secrets as stars, of content only the length."""
    shown: dict[str, Any] = {}
    for name, value in params.items():
        if name in _SECRET:
            shown[name] = "**********"
        elif name in _CONTENT:
            shown[name] = f"({len(str(value))} characters)"
        else:
            shown[name] = value
    return shown


class RequestLog:
    """Appends to a file; without a file it does nothing."""

    def __init__(self, path: Path | None) -> None:
        self._file = path.open("a", encoding="utf-8") if path else None
        self._mutex = threading.Lock()

    def write(
        self, user: str | None, method: str, path: str, params: Mapping[str, Any], status: int, seconds: float
    ) -> None:
        """Write one request, `seconds` after it arrived. `status` 0: the connection was closed without an answer."""
        if self._file:
            entry = {
                "time": round(time.time(), 3),
                "user": user,
                "method": method,
                "path": path,
                "params": mask(params),
                "status": status,
                "seconds": round(seconds, 3),
            }
            with self._mutex:
                self._file.write(json.dumps(entry) + "\n")
                self._file.flush()
