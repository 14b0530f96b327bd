"""Layouts of `.sops.yaml`, one file each beside this module, with what is to be read out of them and what an edit does.

The texts were written for these tests. Their recipients are made from labels (KEYS), the same on each machine: of
X25519 keys there are private keys too (`tests.nixherd.trust.secrets.keys.key(label).identity`).
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from nixherd.ssh.age import _encode as bech32
from tests.nixherd.trust.secrets.keys import key

HOSTS = ("web", "db")
"""the machines that layouts know; `mail` is new"""
NEW = "mail"

KEYS: Mapping[str, str] = {
    **{name: key(name).recipient for name in ("alice", "bob", "old", *HOSTS, NEW, "mail again")},
    **{f"{name}-ssh": key(name).public for name in ("bob", "db", NEW)},
    "yubikey": bech32("age1yubikey", b"\2" + hashlib.sha256(b"yubikey").digest()),
    # A fingerprint without a key; a test with real PGP keys puts one of those in its place (`Layout.text_with`).
    "carol": hashlib.sha256(b"carol").hexdigest()[:40].upper(),
    "kms": "arn:aws:kms:eu-central-1:000000000000:key/5f1c7d2e-0000-4000-8000-000000000000",
    "vault": "https://vault.example.org:8200/v1/transit/keys/fleet",
}
KINDS: Mapping[str, str] = {"carol": "pgp", "kms": "kms", "vault": "hc_vault"}
"""the kinds of those that are not age's, by label"""


@dataclass(frozen=True)
class ExpectedRule:
    """`groups` are labels of KEYS, those of one group with blanks between them, in their order as sops reads them."""

    path_regex: str | None
    groups: tuple[str, ...]
    threshold: int = 0


@dataclass(frozen=True)
class Layout:
    """`place` is the file's directory in its repository; `hosts` what labels of KEYS machines have here.

    `names`: what a key is called, by label; whoever is missing has no name. `paths`: secret files, relative to the
    file's directory, with the number of their rule, None where no rule is for them. `joins`: rules that `mail` is added
    to. `added`: the lines that are new then, and those that are longer, with labels in angle brackets; or None where
    that is refused, with `refusal`, a regular expression. `below`: the beginning of the line right above the first new
    line. `removed`: the lines that go when `web` leaves, and what is left of those that become shorter behind them; or
    None and `kept`, a regular expression for the refusal.
    """

    name: str
    rules: tuple[ExpectedRule, ...]
    names: Mapping[str, str]
    paths: Mapping[str, int | None]
    joins: tuple[int, ...] = (1,)
    added: tuple[str, ...] | None = None
    refusal: str = ""
    below: str = ""
    removed: tuple[str, ...] | None = None
    kept: str = ""
    place: str = ""
    hosts: Mapping[str, str] = field(default_factory=lambda: {"web": "web", "db": "db"})
    is_generated: bool = False

    @property
    def text(self) -> str:
        return (Path(__file__).parent / f"{self.name}.sops.yaml").read_bytes().decode()

    def text_with(self, keys: Mapping[str, str]) -> str:
        """The text with other recipients for these labels, such as the fingerprint of a real key."""
        text = self.text
        for label, recipient in keys.items():
            text = text.replace(KEYS[label], recipient)
        return text


def written(line: str) -> str:
    """A line of `added` or `removed` as it is in a file."""
    for label, recipient in KEYS.items():
        line = line.replace(f"<{label}>", recipient)
    return line


ALL = {"alice": "alice", "web": "web", "db": "db"}
TWO = {"alice": "alice", "web": "web"}
FOUR = {**ALL, "bob": "bob"}
