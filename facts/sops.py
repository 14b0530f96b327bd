"""Facts of the secrets that a machine has decrypted."""

import re
from typing import TypedDict

from pyinfra.api.exceptions import FactProcessError
from typing_extensions import override

from nixherd.facts.base import Fact

_SALT = re.compile(r"[0-9a-f]*")
_LINE = re.compile(r"([0-7]+) (\S+) (\S+) (\d+) ([0-9a-f]{64}) (/.*)")  # mode, owner, group, size, hash, path
_BEGIN, _END = "nixherd-secrets", "nixherd-secrets-end"


class Secret(TypedDict):
    """`hash` is the SHA-256 of the salt and the content; `size` in bytes, `mode` as in `400`."""

    hash: str
    size: int
    mode: str
    owner: str
    group: str


class Secrets(Fact[dict[str, Secret] | None]):
    """
    Returns what sops-nix has decrypted on the machine, templates included, by path; what is in them is never read
    here. None where the machine does not say; an error where not all of it can be seen, as without root (`_sudo=True`).

    .. code:: python

        {"/run/secrets/api_token": {"hash": "9f86d081…", "size": 32, "mode": "400", "owner": "root", "group": "root"}}

    `salt`: hexadecimal digits that are hashed before the content, so that no short secret can be guessed.
    """

    @override
    def command(self, salt: str = "") -> str:
        if not _SALT.fullmatch(salt):
            raise ValueError("the salt is hexadecimal digits")
        return f"""
LC_ALL=C; export LC_ALL; echo {_BEGIN}
for directory in /run/secrets /run/secrets-for-users; do
  if ! found=$(stat -- "$directory" 2>&1); then
    case $found in *'No such file or directory'*) ;; *) echo "why=$found" ;; esac
    continue
  fi
  if ! files=$(find "$directory/" -type f 2>&1); then echo "why=$files"; continue; fi
  printf '%s\\n' "$files" | sort | while IFS= read -r file; do
    [ -n "$file" ] || continue
    hash=$({{ printf %s {salt or "''"}; cat -- "$file"; }} | sha256sum)
    printf '%s %s %s\\n' "$(stat -c '%a %U %G %s' -- "$file")" "${{hash%% *}}" "$directory/${{file#"$directory/"}}"
  done
done
echo {_END}"""

    @override
    @staticmethod
    def default() -> None:
        return None

    @override
    def process(self, output: list[str]) -> dict[str, Secret] | None:
        lines = [line.strip() for line in output if line.strip()]
        if _BEGIN not in lines:
            raise FactProcessError("it did not answer")
        if _END not in lines:
            raise FactProcessError("its answer was cut off")
        found = {}
        for line in lines[lines.index(_BEGIN) + 1 : lines.index(_END)]:
            if line.startswith("why="):
                raise FactProcessError(f"not all of its secrets can be seen: {line.removeprefix('why=')}")
            match = _LINE.fullmatch(line)
            if match is None:
                raise FactProcessError("a line is not `MODE OWNER GROUP SIZE HASH PATH`")
            mode, owner, group, size, hash, path = match.groups()
            found[path] = Secret(hash=hash, size=int(size), mode=mode, owner=owner, group=group)
        return found
