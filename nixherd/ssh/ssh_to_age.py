"""`ssh-to-age` where it is on PATH; the same conversion of our own elsewhere."""

import shutil

from nixherd.errors import FleetError, ProcessFailed
from nixherd.process import run
from nixherd.ssh import age

PROGRAM = "ssh-to-age"


def recipient(public: str) -> str:
    """The age recipient of an SSH public key line. FleetError says why there is none."""
    return _converted(public, [], age.recipient_of)


def identity(private_openssh: str) -> str:
    """The age identity of an SSH private key in OpenSSH's PEM form; it travels on stdin. FleetError as above."""
    return _converted(private_openssh, ["-private-key"], age.identity_of)


def _converted(text: str, options: list[str], own: "age.Conversion") -> str:
    try:
        expected = own(text)  # says what is wrong with a key in words of ours
    except ValueError as error:
        raise FleetError(f"it cannot become an age key: {error}") from None
    if shutil.which(PROGRAM) is None:
        return expected
    try:
        found = run([PROGRAM, *options], input=text, timeout=30).stdout.strip()
    except ProcessFailed as error:
        raise FleetError(f"{PROGRAM}: status {error.status}; remove it from PATH, or mend it") from None
    if found != expected:
        raise FleetError(f"{PROGRAM} on PATH converts this key to another one than expected; nothing was done with it")
    return found
