"""What a secret file holds until somebody writes what is to be in it: a random text for each secret."""

import json
import secrets as random
from collections.abc import Iterable
from typing import Any

import yaml

from nixherd.trust.secrets.files import Format

_BYTES = 24
_WHOLE = "placeholder"


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
