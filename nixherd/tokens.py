"""The API token, read from a file that nobody else can read."""

import os
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path

from nixherd.errors import FleetError

_SHAPE = "USER@REALM!TOKENID=UUID"
_TOKEN = re.compile(
    r"(?P<user>[^\s:/!@=]+@[A-Za-z][A-Za-z0-9._-]*)!(?P<name>[A-Za-z][A-Za-z0-9._-]*)"
    r"=(?P<secret>[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12})"
)


@dataclass(frozen=True, slots=True)
class Token:
    """A Proxmox API token. `user` includes the realm; the secret is in no representation."""

    user: str
    name: str
    secret: str = field(repr=False)

    @property
    def id(self) -> str:
        """`USER@REALM!TOKENID`: what may be shown."""
        return f"{self.user}!{self.name}"

    def __str__(self) -> str:
        return self.id

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> "Token":
        """The token in a file of one line `USER@REALM!TOKENID=UUID` and mode 0600.

        FleetError when the file is missing, readable by group or others, not ours, or holds anything else.
        """
        file = Path(path).expanduser()
        match = _TOKEN.fullmatch(_read_private(file).strip())
        if match is None:
            raise FleetError(
                f"token file {file}: not one line of the form {_SHAPE}; write the token as pveum printed it"
            )
        return cls(**match.groupdict())


def _read_private(file: Path) -> str:
    try:
        with file.open(encoding="utf-8", errors="replace") as stream:
            status = os.fstat(stream.fileno())
            mode = stat.S_IMODE(status.st_mode)
            if mode & 0o077:
                raise FleetError(
                    f"token file {file}: group or others may use it (mode {mode:04o}); run: chmod 600 {file}"
                )
            if status.st_uid not in (os.geteuid(), 0):
                raise FleetError(
                    f"token file {file}: belongs to another user (uid {status.st_uid}); make your own copy"
                )
            text = stream.read(4096)
    except FileNotFoundError:
        raise FleetError(
            f"token file {file}: missing; make an API token and write {_SHAPE} into it, mode 0600, "
            "or name another file with PROXMOX_TOKEN_FILE"
        ) from None
    except OSError as error:
        raise FleetError(f"token file {file}: cannot be read: {error.strerror}; check its path and mode") from None
    if not text.strip():
        raise FleetError(f"token file {file}: empty; write the token into it as {_SHAPE}")
    return text
