"""What a machine that pulls is told to run: a signed file, `systems/HOSTNAME` of a cache.

    nixherd-system 1
    host=NAME
    system=/nix/store/…
    revision=WHOLE HASH, or -
    serial=NUMBER
    -----BEGIN SSH SIGNATURE-----
    …

The cache's own key signs what stands before the signature, for the namespace `nixherd-system`. The serial is the time
of publication in seconds since the epoch, later than that of the one before: a machine takes no older one. The program
on the machine that reads it is fleet/modules/nixos/pull.sh.
"""

import base64
import binascii
import os
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path

from nixherd.errors import FleetError, Usage
from nixherd.fleet import signatures
from nixherd.fleet.signatures import FULL_HASH
from nixherd.nix.commands import STORE_PATH

NAMESPACE = "nixherd-system"
BEGIN = "-----BEGIN SSH SIGNATURE-----\n"
_LONGEST = 1 << 16  # bytes
_FORM = "nixherd-system 1"
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
_NAMES_OF_KEYS = re.compile(r"[A-Za-z0-9_.+-]+")
_TEXT = re.compile(rf"{_FORM}\nhost=(.+)\nsystem=(.+)\nrevision=(.+)\nserial=(0|[1-9][0-9]{{0,14}})\n")
_ED25519 = b"\0\0\0\x0bssh-ed25519\0\0\0\x20"


@dataclass(frozen=True)
class Pointer:
    """`host` is the machine's own hostname, `serial` what orders those of one host."""

    host: str
    system: str
    revision: str | None
    serial: int

    def __str__(self) -> str:
        lines = (_FORM, f"host={self.host}", f"system={self.system}", f"revision={self.revision or '-'}")
        return "\n".join((*lines, f"serial={self.serial}")) + "\n"


@dataclass(frozen=True)
class SigningKey:
    """A cache's key: its file, its public half as `NAME:BASE64`, and the private one as OpenSSH has it."""

    file: Path
    public: str
    private: str = field(repr=False)

    @classmethod
    def read(cls, file: Path) -> "SigningKey":
        """Usage when the key does not exist, or others may read it."""
        try:
            with file.open(encoding="utf-8", errors="replace") as stream:
                mode, text = stat.S_IMODE(os.fstat(stream.fileno()).st_mode), stream.read(4096)
        except OSError as error:
            hint = "; `nix key generate-secret --key-name NAME` prints one" if not file.exists() else ""
            raise Usage(f"--key-file {file}: {error.strerror}{hint}") from None
        if mode & 0o077:
            raise Usage(f"--key-file {file}: others may read this key (mode {mode:04o}); chmod 600 it")
        try:
            name, public = text.strip().partition(":")[0], signatures.nix_public(text)
            if not _NAMES_OF_KEYS.fullmatch(name):
                raise ValueError("its name has other characters than letters, digits and ._+-")
            return cls(file, f"{name}:{public}", signatures.openssh_key(text))
        except ValueError as error:
            raise Usage(f"--key-file {file}: {error}") from None

    def sign(self, pointer: Pointer, scratch: Path) -> str:
        """The pointer's file. The key is in a file of `scratch` meanwhile."""
        return f"{pointer}{signatures.sign(str(pointer), self.private, NAMESPACE, scratch)}"


def parse(text: str) -> Pointer:
    """What stands before the signature. ValueError for anything but exactly that."""
    found = _TEXT.fullmatch(text)
    if found is None:
        raise ValueError("it is not a pointer of the form that this version knows")
    host, system, revision, serial = found.groups()
    if not STORE_PATH.match(system) or not (revision == "-" or FULL_HASH.fullmatch(revision)):
        raise ValueError("it names no system, or no whole revision")
    if not _NAME.fullmatch(host):
        raise ValueError("it is for no name that a machine could have")
    return Pointer(host, system, None if revision == "-" else revision, int(serial))


def read(file: Path, public: str, host: str, scratch: Path) -> Pointer | None:
    """The pointer in a file, if it is for this host and this key has signed it; None otherwise."""
    try:
        with os.fdopen(os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as stream:
            text = stream.read(_LONGEST).decode(errors="replace")
        said, begin, signature = text.partition(BEGIN)
        pointer = parse(said)
    except (OSError, ValueError):
        return None
    signers = scratch / "publisher"
    signers.write_text(f'nixherd namespaces="{NAMESPACE}" ssh-ed25519 {_ssh_blob(public)}\n')
    whose = signatures.signer(begin + signature, said.encode(), signers, NAMESPACE, pointer.serial, scratch)
    return pointer if whose and pointer.host == host else None


def require_name(host: str) -> None:
    """FleetError for what no machine is called: it could be told nothing."""
    if not _NAME.fullmatch(host):
        raise FleetError(f"networking.hostName = {host!r} is not a name that a machine could ask by; give it one")


def _ssh_blob(public: str) -> str:
    try:
        return base64.b64encode(_ED25519 + base64.b64decode(public.partition(":")[2], validate=True)).decode()
    except binascii.Error:
        return ""
