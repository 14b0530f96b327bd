"""Paths of the lab: state in the checkout's `.lab/`, expensive results in a cache that checkouts share."""

import hashlib
import os
import tomllib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path


def cache_directory() -> Path:
    """Return `$XDG_CACHE_HOME/nixherd-lab`, by default below ~/.cache."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "nixherd-lab"


@dataclass(frozen=True)
class Places:
    """Paths of one checkout's lab; creating this object creates no files."""

    checkout: Path

    @classmethod
    def here(cls) -> "Places":
        """Return the paths of the checkout that contains this file."""
        return cls(Path(__file__).resolve().parent.parent)

    @property
    def state(self) -> Path:
        """`.lab/`, or the value of NIXHERD_LAB: a second lab of the same checkout, such as the tests' own."""
        return Path(os.environ.get("NIXHERD_LAB") or self.checkout / ".lab")

    @property
    def fleet(self) -> Path:
        return self.state / "fleet"

    @property
    def home(self) -> Path:
        return self.state / "home"

    @property
    def token(self) -> Path:
        """TOML: the API token and the server that it belongs to."""
        return self.state / "token"

    def token_line(self) -> str:
        """Return the token itself, `USER@REALM!ID=SECRET`."""
        return str(tomllib.loads(self.token.read_text())["token"])

    @property
    def api_log(self) -> Path:
        return self.state / "api.jsonl"

    @property
    def lab_log(self) -> Path:
        return self.state / "lab.log"

    @property
    def consoles(self) -> Path:
        """The machines' console output, one file each."""
        return self.state / "consoles"

    @property
    def disks(self) -> Path:
        return self.state / "disks"

    @property
    def running(self) -> Path:
        """JSON about the running supervisor; see `lab.control`."""
        return self.state / "running.json"

    @property
    def certificate(self) -> Path:
        return self.state / "api.pem"

    @property
    def certificate_key(self) -> Path:
        return self.state / "api.key"

    @property
    def nix_root(self) -> Path:
        """The /nix of the lab's namespace, unless the user has a Nix."""
        return self.state / "nix"

    @cached_property
    def name(self) -> str:
        """A name that distinguishes this lab's control groups and mounts from another's."""
        return "nixherd-lab-" + hashlib.sha256(str(self.state).encode()).hexdigest()[:8]
