"""Option names as Nix writes them: `a.b."c.d".<name>.*`."""

import json
import re

_PART = re.compile(r'"(?:[^"\\]|\\.)*"|<[^>]*>|[^."]+')


def parts(name: str) -> list[str]:
    """Split a name into attributes without quotes: `a."b.c"` is a, b.c. Raises ValueError."""
    if '"' not in name:
        return name.split(".")
    parts = _PART.findall(name)
    if ".".join(parts) != name:
        raise ValueError(f"{name} is not an option's name")
    return [json.loads(part) if part.startswith('"') else part for part in parts]


def is_attribute(part: str) -> bool:
    """Return whether a part is a placeholder for any attribute: `<name>`, `<path>`, …"""
    return part.startswith("<") and part.endswith(">")
