"""Signatures by SSH keys, as ssh-keygen(1) makes and verifies them, and Nix's signing keys as such keys.

A cache's secret key is `NAME:` and the base64 of an ed25519 seed and public key (nix3-key-generate-secret(1)); the same
key signs for ssh-keygen. Private halves are in files of mode 0600, for as long as a signature takes.
"""

import base64
import binascii
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nixherd.errors import FleetError, ProcessFailed
from nixherd.process import Completed, run

_TIMEOUT = 60.0  # seconds
_SEED = 32  # bytes


def signer(
    signature: str, payload: bytes, signers: Path, namespace: str, made: int, scratch: Path | None = None
) -> str | None:
    """Who of `signers` (a file as ssh-keygen(1) has it) signed this at that time, in seconds since the epoch; or None.

    A key counts for the namespaces and the time that the file says. What is needed in files meanwhile is in `scratch`.
    """
    at = f"-Overify-time={time.strftime('%Y%m%d%H%M%S', time.gmtime(made))}"
    with _file(signature.encode(), scratch) as file:
        asked = ("-f", str(signers), "-s", str(file), at)
        found = _keygen("find-principals", *asked)
        for principal in found.stdout.splitlines() if found.status == 0 else ():
            done = _keygen("verify", "-n", namespace, "-I", principal, *asked, input=payload)
            if done.status == 0:
                return principal
    return None


def sign(text: str, key: str, namespace: str, scratch: Path) -> str:
    """The signature of a text by a private key in OpenSSH's form, which is in a file of `scratch` meanwhile."""
    with _file(key.encode(), scratch) as file:
        done = _keygen("sign", "-f", str(file), "-n", namespace, input=text.encode())
    if done.status or not done.stdout.startswith("-----BEGIN SSH SIGNATURE-----"):
        raise FleetError(f"ssh-keygen -Y sign: {done.stderr.strip() or f'status {done.status}'}")
    return done.stdout


def openssh_key(secret: str) -> str:
    """The private key in OpenSSH's form that a cache's secret key is. ValueError for what is none."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

    both = _decoded(secret)
    key = Ed25519PrivateKey.from_private_bytes(both[:_SEED])
    if key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw) != both[_SEED:]:
        raise ValueError("its two halves do not belong together")
    return key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()


def nix_public(secret: str) -> str:
    """The base64 of the public half of a cache's secret key. ValueError for what is none."""
    return base64.b64encode(_decoded(secret)[_SEED:]).decode()


def _decoded(secret: str) -> bytes:
    try:
        both = base64.b64decode(secret.strip().partition(":")[2], validate=True)
    except (binascii.Error, ValueError):
        both = b""
    if len(both) != 2 * _SEED:
        raise ValueError("it is no key as `nix key generate-secret --key-name NAME` prints it")
    return both


@contextmanager
def _file(content: bytes, scratch: Path | None) -> Iterator[Path]:
    """A file of mode 0600 in a directory of ours, for as long as it is needed."""
    with tempfile.TemporaryDirectory(prefix="sign-", dir=scratch) as directory:
        file = Path(directory) / "file"
        file.touch(mode=0o600)
        file.write_bytes(content)
        yield file


def _keygen(verb: str, *words: str, input: bytes | None = None) -> Completed:
    argv = ["ssh-keygen", "-Y", verb, *words]
    env = {"PATH": os.environ.get("PATH", os.defpath), "TZ": "UTC", "LC_ALL": "C.UTF-8"}
    try:
        return run(argv, env=env, closed=True, input=input, timeout=_TIMEOUT, check=False)
    except ProcessFailed as error:
        if error.status == 127:
            raise FleetError("ssh-keygen: not on PATH; install OpenSSH") from error
        raise
