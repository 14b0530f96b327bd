"""Secrets that are there and are not sops': of agenix, ragenix, and clan, as they lie in a repository."""

import posixpath
import re
from collections.abc import Sequence

from nixherd.base.names import many

_AGENIX = "secrets.nix"
_CLAN = re.compile(
    r"(?:^|/)(?:(?P<top>sops)/(?:machines/[^/]+/key\.json|secrets/[^/]+/secret)|(?P<vars>vars)/(?:per-machine|shared)/.+)$"
)


def others_in(files: Sequence[str]) -> list[str]:
    """What these files show of other programs' secrets, a name with what there is for each; paths from anywhere."""
    found = []
    rules = [path for path in files if posixpath.basename(path) == _AGENIX]
    encrypted = [path for path in files if path.endswith(".age")]
    if rules and encrypted:
        found.append(f"agenix ({rules[0]}, {many(len(encrypted), '.age file')})")
    if tops := sorted({match["top"] or match["vars"] for path in files if (match := _CLAN.search(path))}):
        found.append(f"clan ({', '.join(f'{top}/' for top in tops)})")
    return found
