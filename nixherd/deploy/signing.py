"""How a machine's store takes what was built elsewhere: signed by a key that it trusts, or from root's hands."""

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nixherd.deploy.machine import ANSWER_DEADLINE, Machine
from nixherd.errors import FleetError, Usage
from nixherd.files import expanded
from nixherd.fleet.models import Access
from nixherd.nix import commands as nix
from nixherd.process import run
from nixherd.reasons import reason
from nixherd.ssh.sudo import Sudo

SIGN_DEADLINE = 1800.0  # seconds
KEY_DEADLINE = 60.0
UNSIGNED = (
    "its store takes what a key of its trusted-public-keys has signed, and none has; say sign_with=KEY_FILE, whose "
    "public half is in nixherd.trustedKeys there (trusted-public-keys, where a machine is not of the fleet)"
)


@dataclass(frozen=True)
class SigningKey:
    """A secret key file as `nix key generate-secret` makes it."""

    file: Path

    @classmethod
    def of(cls, name: str, value: str) -> "SigningKey":
        """From the datum `name`. Usage when the file does not exist, FleetError when others may read it."""
        file = expanded(value)
        if not file.is_file():
            raise Usage(f"{name}={value}: no such file; `nix key generate-secret --key-name NAME` makes a key")
        if file.stat().st_mode & 0o077:
            raise FleetError(f"{file}: others may read this secret key; chmod 600 it")
        return cls(file)

    @property
    def public(self) -> str:
        """As trusted-public-keys has it."""
        return run(nix.PUBLIC_KEY, input=self.file.read_bytes(), timeout=KEY_DEADLINE).stdout.strip()

    def sign(self, paths: Sequence[str]) -> None:
        """Sign everything in these closures here."""
        run(nix.sign(paths, str(self.file)), timeout=SIGN_DEADLINE)


def store_access(machine: Machine, paths: Sequence[str], sign_with: str | None, *, is_nixos: bool) -> Sudo | None:
    """Sign these closures with the key file `sign_with`, and return through whom the machine takes them.

    None: from us as they are. FleetError where it certainly would not take them.
    """
    key = SigningKey.of("sign_with", sign_with) if sign_with else None
    if key:
        key.sign(paths)
    if machine.access is Access.PUSH_CLOSURE:
        _require_signed(machine, paths)
        return None
    if not is_nixos or machine.user == "root" or (key and _trusts(machine, key)):
        return None
    return _root_of(machine)


def _trusts(machine: Machine, key: SigningKey) -> bool:
    script = f"! command -v nix >/dev/null || {shlex.join((*nix.NIX, 'config', 'show', '--json'))}"
    done = machine.run(script, deadline=ANSWER_DEADLINE)
    try:
        settings = json.loads(done.stdout or "{}")
        return key.public in settings.get("trusted-public-keys", {}).get("value", ())
    except (ValueError, AttributeError):
        raise FleetError(f"{machine.id}: expected JSON from nix, got {done.stdout[:100]!r}") from None


def _root_of(machine: Machine) -> Sudo:
    """Root's store there, by sudo. FleetError when sudo does not let us."""
    why = "it asks for a password"
    # said in no words of sudo's, which pyinfra would answer by asking for a password itself; and asked in any case: a
    # password that sudo does not read would be the first thing that Nix reads there
    if machine.run("sudo -n true >/dev/null 2>&1").status == 0:
        return Sudo()
    if machine.password is not None or machine.give_password():
        done = machine.run("true", sudo=True)  # with a wrong one, Nix and sudo would wait for each other
        if done.status == 0:
            return Sudo(machine.password)
        why = reason(done.stderr.strip() or done.stdout)
    raise FleetError(
        f"its store takes nothing unsigned from {machine.user}, and sudo does not let it be root: {why}; "
        "give its password on stdin with --data sudo_password=stdin, or say sign_with=KEY_FILE, whose public half is "
        "in nixherd.trustedKeys there"
    )


def _require_signed(machine: Machine, paths: Sequence[str]) -> None:
    """FleetError when nobody has signed what a machine takes signed alone."""
    for path in paths:
        if not nix.parse_signatures(run(nix.signatures(path), timeout=KEY_DEADLINE).stdout):
            raise FleetError(f"{machine.id}: {UNSIGNED} ({path})")
