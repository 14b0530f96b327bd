"""How a machine's store takes what was built elsewhere: signed by a key that it trusts, or from root's hands."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pyinfra.api.host import Host

from facts.nix import Settings
from nixherd.errors import FleetError, Usage
from nixherd.files import expanded
from nixherd.fleet.models import Access
from nixherd.nix import commands as nix
from nixherd.process import run
from nixherd.ssh.sudo import Sudo
from operations.deploy_run import ANSWER_DEADLINE, give_password, options_of
from operations.steps import connector_of, fleet_host, remote

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
        """From what was said as `name`. Usage when there is no such file, FleetError when others may read it."""
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


def taken_through(host: Host, paths: Sequence[str]) -> Sudo | None:
    """Sign these closures where the host's data say with what, and say through whom the machine takes them.

    None: from us as they are. FleetError where it certainly would not.
    """
    connector, said = connector_of(host), options_of(host).sign_with
    key = SigningKey.of("sign_with", said) if said else None
    if key:
        key.sign(paths)
    if connector.access is Access.PUSH_CLOSURE:
        _require_signed(host, paths)
        return None
    if not fleet_host(host).is_nixos or connector.data["ssh_user"] == "root" or (key and _trusts(host, key)):
        return None
    return _root_of(host)


def _trusts(host: Host, key: SigningKey) -> bool:
    return key.public in host.get_fact(Settings, _timeout=ANSWER_DEADLINE).get("trusted-public-keys", ())


def _root_of(host: Host) -> Sudo:
    """Root's store there, by sudo. FleetError when it does not let us."""
    connector, why = connector_of(host), "it asks for a password"
    # said in no words of sudo's, which pyinfra would answer by asking for a password itself; and asked in any case: a
    # password that sudo does not read would be the first thing that Nix reads there
    if remote(host, "sudo -n true >/dev/null 2>&1")[0]:
        return Sudo()
    if connector.sudo_password is not None or give_password(host):
        ok, output = remote(host, "true", sudo=True)  # with a wrong one, Nix and sudo would wait for each other
        if ok:
            return Sudo(connector.sudo_password)
        why = (output.stderr_lines or ["no answer"])[-1]
    raise FleetError(
        f"its store takes nothing unsigned from {connector.data['ssh_user']}, and sudo does not let it be root: {why}; "
        "give its password on stdin with --data sudo_password=stdin, or say sign_with=KEY_FILE, whose public half is "
        "in nixherd.trustedKeys there"
    )


def _require_signed(host: Host, paths: Sequence[str]) -> None:
    """FleetError when nobody has signed what a machine takes signed alone."""
    for path in paths:
        if not nix.parse_signatures(run(nix.signatures(path), timeout=KEY_DEADLINE).stdout):
            raise FleetError(f"{host.data.host_id}: {UNSIGNED} ({path})")
