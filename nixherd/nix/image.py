"""The image of a kexec installer: the flake's own, a file, or one that is fetched by its hash."""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path

from nixherd.base.errors import FleetError, ProcessFailed
from nixherd.base.process import run
from nixherd.nix.commands import NIX
from nixherd.nix.errors import last_error

KEXEC_INSTALLER = "kexec-installer"
FETCH_DEADLINE = 3600.0  # seconds
_GZIP = b"\x1f\x8b"


def here() -> str:
    """What this machine is, as Nix calls it."""
    system, _, _, _, machine = os.uname()
    return f"{machine}-{system.lower()}"


@dataclass(frozen=True)
class Image:
    """Which kexec installer: the flake's for a platform, or `given`, which is a file or a URL with its hash.

    `sha256` is as Nix writes it, `sha256-…`.
    """

    system: str = field(default_factory=here)
    given: str | None = None
    sha256: str | None = None

    @property
    def packages(self) -> str:
        """Where the flake has what is for the platform."""
        return f"packages.{self.system}"

    @property
    def attribute(self) -> str:
        """Where the flake has it."""
        return f"{self.packages}.{KEXEC_INSTALLER}"


def require_gzip(file: Path) -> None:
    """FleetError unless this is a compressed tarball, by how it begins."""
    try:
        with file.open("rb") as content:
            begins = content.read(len(_GZIP))
    except OSError as error:
        raise FleetError(f"kexec: {file}: cannot be read ({error.strerror}); name the installer's .tar.gz") from error
    if begins != _GZIP:
        raise FleetError(f"kexec: {file}: is not a .tar.gz; take a kexec installer of nixos-images")


def fetched(url: str, sha256: str) -> str:
    """The store path of a file that is fetched. FleetError when it cannot be, or has another hash."""
    try:
        return str(json.loads(run(_fetch(url, sha256), timeout=FETCH_DEADLINE).stdout)["storePath"])
    except ProcessFailed as error:
        if not error.stderr:
            raise
        raise FleetError(f"kexec: {url}: {last_error(error.stderr)}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise FleetError(f"kexec: {url}: nix printed something unexpected ({error!r}) when it fetched it") from error


def _fetch(url: str, sha256: str) -> list[str]:
    """Fetch a file into the store, which has to have this hash; JSON with its `storePath`."""
    return [*NIX, "store", "prefetch-file", "--json", "--expected-hash", sha256, "--", url]
