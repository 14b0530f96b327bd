"""Facts of the secrets that a machine has decrypted."""

from typing import TypedDict

from typing_extensions import override

from nixherd.facts.base import Fact
from nixherd.trust.secrets import proof


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
        return proof.listing(salt)

    @override
    @staticmethod
    def default() -> None:
        return None

    @override
    def process(self, output: list[str]) -> dict[str, Secret] | None:
        return {path: _secret(entry) for path, entry in proof.parse_listing(output).items()}


def _secret(entry: proof.Entry) -> Secret:
    owner, group = entry.owners[1], entry.groups[1]
    return Secret(hash=entry.hash, size=entry.size, mode=f"{entry.mode:o}", owner=owner, group=group)
