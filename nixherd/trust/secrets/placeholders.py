"""What a secret file holds until somebody writes what is to be in it: a random text for each secret."""

import json
import secrets as random
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

import yaml

from nixherd.nix.declared import DeclaredSecret
from nixherd.trust.secrets.files import Encrypted, Format
from nixherd.trust.secrets.keys import Recipient

_BYTES = 32  # of randomness in a text
_WHOLE = "placeholder"


@dataclass(frozen=True)
class NewFile:
    """A secret file that does not exist yet: what is to be encrypted, for whom by its rule in `config`. Shown as made.

    `names` are those of its recipients.
    """

    path: str
    config: str
    format: Format
    text: str = field(repr=False)
    keys: tuple[str, ...]
    recipients: frozenset[Recipient]
    names: str

    @classmethod
    def of(
        cls,
        path: str,
        config: str,
        declared: Collection[DeclaredSecret],
        recipients: Collection[Recipient],
        names: str,
    ) -> "NewFile":
        """The file in which configurations declare these secrets. ValueError where none can be as they declare it."""
        formats, by_name = {secret.format for secret in declared}, Format.of(path)
        if formats != {str(by_name)}:
            declared_as = " and as ".join(sorted(formats))
            raise ValueError(f"is declared as {declared_as}, and sops takes it for {by_name} by its name")
        keys = tuple(sorted({secret.key for secret in declared}))
        return cls(path, config, by_name, document(by_name, keys), keys, frozenset(recipients), names)

    def is_done(self, file: Encrypted | None) -> bool:
        """Whether the file is as it is to be."""
        return file is not None and set(file.recipients) == self.recipients

    def __str__(self) -> str:
        what = (
            f" of {', '.join(key or 'all' for key in self.keys)}" if self.format in (Format.YAML, Format.JSON) else ""
        )
        return f"{self.path}: new, encrypted for {self.names}, with a random text in place{what or ' of its content'}"


def document(file_format: Format, keys: Iterable[str]) -> str:
    """Return a file's content with these keys, nested at each `/` as sops-nix has them; "" is for the whole file.

    ValueError where one key is both a value and the parent of another.
    """
    match file_format:
        case Format.YAML:
            return yaml.safe_dump(_tree(keys), sort_keys=False, allow_unicode=True)
        case Format.JSON:
            return json.dumps(_tree(keys), indent=2, ensure_ascii=False) + "\n"
        case Format.DOTENV:
            return f"{_WHOLE.upper()}={_text()}\n"
        case Format.INI:
            return f"[{_WHOLE}]\nvalue = {_text()}\n"
    return f"{_text()}\n"


def _text() -> str:
    return random.token_urlsafe(_BYTES)


def _tree(keys: Iterable[str]) -> dict[str, Any]:
    root: dict[str, Any] = {}
    for key in sorted(set(keys)):
        *parents, last = (key or _WHOLE).split("/")
        inner = root
        for parent in parents:
            inner = inner.setdefault(parent, {})
            if not isinstance(inner, dict):
                raise ValueError(f"the key {key} is below another one that is a secret itself")
        inner.setdefault(last, _text())
    return root
