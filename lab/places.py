"""Where the lab keeps things: state in the checkout's `.lab/`, what is dear to make in a cache that checkouts share."""

import hashlib
import os
import tomllib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path


def cache_directory() -> Path:
    """`$XDG_CACHE_HOME/nixherd-lab`, by default below ~/.cache."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "nixherd-lab"


@dataclass(frozen=True)
class Places:
    """Paths of one checkout's lab; nothing is created by naming them."""

    checkout: Path

    @classmethod
    def here(cls) -> "Places":
        """Those of the checkout that this file belongs to."""
        return cls(Path(__file__).resolve().parent.parent)

    @property
    def state(self) -> Path:
        """`.lab/`, or where NIXHERD_LAB says: a second lab of the same checkout, such as the tests' own."""
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
        """The token itself, `USER@REALM!ID=SECRET`."""
        return str(tomllib.loads(self.token.read_text())["token"])

    @property
    def api_log(self) -> Path:
        return self.state / "api.jsonl"

    @property
    def lab_log(self) -> Path:
        return self.state / "lab.log"

    @property
    def consoles(self) -> Path:
        """What the machines print, a file each."""
        return self.state / "consoles"

    @property
    def disks(self) -> Path:
        return self.state / "disks"

    @property
    def running(self) -> Path:
        """JSON about the supervisor that runs now; see `lab.control`."""
        return self.state / "running.json"

    @property
    def certificate(self) -> Path:
        return self.state / "api.pem"

    @property
    def certificate_key(self) -> Path:
        return self.state / "api.key"

    @property
    def nix_root(self) -> Path:
        """What the lab's namespace sees as /nix, unless the user has a Nix."""
        return self.state / "nix"

    @cached_property
    def name(self) -> str:
        """Tells this lab's control groups and mounts from another's."""
        return "nixherd-lab-" + hashlib.sha256(str(self.state).encode()).hexdigest()[:8]
