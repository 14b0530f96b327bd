"""The source of a flake in the store: which of its files, or of an input's, a path of the store is.

An evaluation tells paths of the store alone; secrets are in files of the fleet's directory.
"""

import base64
import filecmp
import hashlib
import json
import os
import posixpath
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from nixherd.base.errors import FleetError
from nixherd.nix.declared import Declared, DeclaredSecret

_STORE = "/nix/store"
_STORE_PATH = re.compile(rf"({_STORE}/[0-9a-df-np-sv-z]{{32}}-([0-9A-Za-z+._?=-]+))(?:/(.*))?")
_BASE32 = "0123456789abcdfghijklmnpqrsvwxyz"
_LARGEST = 1 << 20  # bytes of a file that may be what a copy in the store was made of


@dataclass(frozen=True)
class StoreSource:
    """The source of a flake in the store: `path`, the flake's `directory` in it, and its inputs' names by their paths.

    A flake in a subdirectory of its repository has the whole repository as its source.
    """

    path: str
    directory: str = ""
    inputs: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> "StoreSource":
        """Parse what `nix flake metadata --json` prints. FleetError on anything else."""
        try:
            document = json.loads(text)
            directory = str((document.get("resolved") or {}).get("dir") or "")
            inputs = {}
            for name, node in (document.get("locks") or {}).get("nodes", {}).items():
                if nar_hash := (node.get("locked") or {}).get("narHash"):
                    inputs[source_path(nar_hash)] = str(name)
            return cls(str(document["path"]), directory, inputs)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise FleetError(f"nix flake metadata printed something unexpected ({error!r})") from error

    def placed(self, declared: Declared) -> Declared:
        """With each secret's file as what it is below the fleet's directory, or where else it comes from."""
        return replace(
            declared,
            secrets=tuple(map(self._placed, declared.secrets)),
            specialisations={name: self.placed(each) for name, each in declared.specialisations.items()},
            containers={name: self.placed(each) for name, each in declared.containers.items()},
        )

    def _placed(self, secret: DeclaredSecret) -> DeclaredSecret:
        if secret.origin is None:
            return secret
        file, origin = self.place(secret.origin)
        return replace(secret, file=file, origin=origin)

    def place(self, path: str) -> tuple[str | None, str | None]:
        """A file's path below the fleet's directory and None; or None and where it is instead."""
        path = posixpath.normpath(path)
        if path.startswith(f"{self.path}/"):
            return posixpath.relpath(path.removeprefix(f"{self.path}/"), self.directory or "."), None
        match = _STORE_PATH.fullmatch(path)
        if match is None:
            return None, f"{path} on the machine, which is not in this repository"
        top, name, rest = match.groups()
        if top in self.inputs:
            return None, f"{rest or name} of the flake's input {self.inputs[top]}"
        originals = self._originals(Path(path))
        if len(originals) == 1:
            return posixpath.relpath(originals[0], self.directory or "."), None
        if originals:
            return None, f"{path}, a copy of {' and of '.join(originals)}: name the file itself"
        return None, f"{path}, which is not in this repository"

    def _originals(self, copy: Path) -> list[str]:
        """The files of the source that a copy in the store may have been made of; of several, the one of its name."""
        try:
            if not 0 < copy.stat().st_size <= _LARGEST:
                return []
            same = [path for path in _walk(Path(self.path)) if filecmp.cmp(path, copy, shallow=False)]
        except OSError:
            return []
        found = [os.path.relpath(path, self.path) for path in same]
        named = [path for path in found if copy.name.endswith(f"-{posixpath.basename(path)}") or path == copy.name]
        return sorted(named if len(named) == 1 else found)


def _walk(root: Path) -> Iterator[Path]:
    for parent, _, names in os.walk(root):
        for name in names:
            path = Path(parent) / name
            if path.is_file() and not path.is_symlink():
                yield path


def source_path(nar_hash: str) -> str:
    """The store path of a source with this hash (`sha256-…`). ValueError when it is not one.

    Nix makes it of the hash alone (its manual, "Store Path Specification", fixed-output paths of NAR archives).
    """
    kind, _, text = nar_hash.partition("-")
    digest = base64.b64decode(text, validate=True)
    if kind != "sha256" or len(digest) != 32:
        raise ValueError(f"{nar_hash} is not a hash of a source")
    whole = hashlib.sha256(f"source:sha256:{digest.hex()}:{_STORE}:source".encode()).digest()
    folded = bytearray(20)
    for index, byte in enumerate(whole):
        folded[index % 20] ^= byte
    return f"{_STORE}/{_base32(bytes(folded))}-source"


def _base32(data: bytes) -> str:
    """As Nix writes it: five bits a character, the last ones first."""
    number = int.from_bytes(data, "little")
    return "".join(_BASE32[number >> 5 * place & 31] for place in reversed(range(len(data) * 8 // 5)))
