"""Private keys in plain text, in any file that git knows: age identities, and keys in PEM (RFC 7468), OpenSSH's too."""

import re
from collections.abc import Iterator

from nixherd.gate.files import Place
from nixherd.gate.results import Found

_KEY = re.compile(
    rb"\bAGE-SECRET-KEY-(?:PQ-)?1[0-9A-Z]{40,}|^[ \t\"']*-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY-----", re.MULTILINE
)
_REMEDY = "take it out of the history too, and make another one: whoever has the repository has it"


def find(place: Place) -> Iterator[Found]:
    """Each with its line. OSError for a file that cannot be read."""
    for file in place.files:
        content = place.text(file)
        if b"KEY-" not in content:
            continue
        for found in _KEY.finditer(content):
            line = content.count(b"\n", 0, found.start()) + 1
            yield Found("a private key in plain text", file, line, remedy=_REMEDY, rule="private-key")
