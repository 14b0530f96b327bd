"""Options' names as Nix writes them: `a.b."c.d".<name>.*`."""

import json
import re

_PART = re.compile(r'"(?:[^"\\]|\\.)*"|<[^>]*>|[^."]+')


def parts(name: str) -> list[str]:
    """The attributes that a name goes through, quotes taken off: `a."b.c"` is a, b.c. Raises ValueError."""
    if '"' not in name:
        return name.split(".")
    found = _PART.findall(name)
    if ".".join(found) != name:
        raise ValueError(f"{name} is not an option's name")
    return [json.loads(part) if part.startswith('"') else part for part in found]


def is_attribute(part: str) -> bool:
    """Whether a part stands for any attribute's name: `<name>`, `<path>`, …"""
    return part.startswith("<") and part.endswith(">")
