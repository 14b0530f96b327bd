"""Facts of the secrets that a machine has decrypted, and of what a secret file here says of itself."""

import re
from typing import TypedDict

from pyinfra.api.exceptions import FactProcessError
from typing_extensions import override

from facts.base import Fact

_SALT = re.compile(r"[0-9a-f]*")
_LINE = re.compile(r"([0-7]+) (\S+) (\d+) ([0-9a-f]{64}) (/.*)")  # mode, owner, size, hash, path


class Secret(TypedDict):
    """`hash` is the SHA-256 of the salt and the content; `size` in bytes, `mode` as in `0400`."""

    hash: str
    size: int
    mode: str
    owner: str


class Secrets(Fact[dict[str, Secret]]):
    """
    Returns what sops-nix has decrypted on the machine, by path; what is in them is never read here. Needs root.

    .. code:: python

        {"/run/secrets/api_token": {"hash": "9f86d081…", "size": 32, "mode": "400", "owner": "root"}}

    `salt`: hexadecimal digits that are hashed before the content, so that no short secret can be guessed.
    """

    @override
    def command(self, salt: str = "") -> str:
        if not _SALT.fullmatch(salt):
            raise ValueError("the salt is hexadecimal digits")
        return f"""
for directory in /run/secrets /run/secrets-for-users; do
  [ -d "$directory/" ] || continue
  find -L "$directory/" -type f | sort | while IFS= read -r file; do
    hash=$({{ printf %s {salt or "''"}; cat -- "$file"; }} | sha256sum)
    printf '%s %s %s\\n' "$(stat -Lc '%a %U %s' -- "$file")" "${{hash%% *}}" "$directory/${{file#"$directory/"}}"
  done
done"""

    default = dict

    @override
    def process(self, output: list[str]) -> dict[str, Secret]:
        found = {}
        for line in filter(None, map(str.strip, output)):
            match = _LINE.fullmatch(line)
            if match is None:
                raise FactProcessError("a line is not `MODE OWNER SIZE HASH PATH`")
            mode, owner, size, hash, path = match.groups()
            found[path] = Secret(hash=hash, size=int(size), mode=mode, owner=owner)
        return found
