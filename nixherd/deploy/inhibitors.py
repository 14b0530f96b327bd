"""What keeps a system from being switched to while another one runs, as the two say themselves. Pure.

`switch-inhibitors` (nixpkgs 26.05 and later) is a JSON object of texts: where both systems have one of a name and the
texts differ, switch-to-configuration asks for a boot. So it does where `init-interface-version` differs.
"""

import json
from collections.abc import Mapping

INHIBITORS, INIT = "switch-inhibitors", "init-interface-version"
Said = Mapping[str, str | None]


def between(running: Said, coming: Said) -> tuple[str, ...]:
    """A line for each, from what the files of these names say in both systems; None where the file does not exist."""
    before, after = (_parsed(each.get(INHIBITORS)) for each in (running, coming))
    common = sorted(before.keys() & after.keys())
    found = [f"{name}: {before[name]} → {after[name]}" for name in common if before[name] != after[name]]
    was, becomes = ((each.get(INIT) or "").strip() for each in (running, coming))
    if was and becomes and was != becomes:
        found.append(f"init: {was} → {becomes}")
    return tuple(found)


def _parsed(text: str | None) -> dict[str, object]:
    """As switch-to-configuration reads it: what is not a JSON object has none."""
    try:
        found = json.loads(text or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
