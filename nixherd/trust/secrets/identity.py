"""Whose keys sops decrypts with: the operator's, or a host's while its private key is here."""

import os
from pathlib import Path

from nixherd.errors import FleetError
from nixherd.files import expanded, write_whole
from nixherd.fleet.host_keys import HostKeys
from nixherd.run import Run
from nixherd.ssh.ssh_to_age import identity
from nixherd.trust.secrets.sops import Sops, identity_text

USUAL = "~/.config/sops/age/keys.txt"


def identity_file(given: str | None) -> Path:
    """The operator's identity: as given, as SOPS_AGE_KEY_FILE says, or in sops' usual place."""
    return expanded(given or os.environ.get("SOPS_AGE_KEY_FILE") or USUAL).absolute()


def operator(run: Run, path: Path) -> Sops:
    """sops as the operator; an SSH key is converted for this run only. FleetError when it is no identity."""
    text = identity_text(path)
    if text != path.read_text():
        path = run.directory / "identity"
        write_whole(path, text)
    return Sops(path, _home(run))


def nobody(run: Run) -> Sops:
    """sops for what needs no identity: to encrypt."""
    return Sops(Path(os.devnull), _home(run))


def as_host(run: Run, keys: HostKeys, host_id: str) -> Sops | None:
    """sops as a host whose private key is here; None when it is not."""
    pair = keys.held(host_id)
    if pair is None:
        return None
    path = run.directory / f"identity-of-{host_id}"
    try:
        write_whole(path, identity(pair.private_openssh) + "\n")
    except FleetError as error:
        raise FleetError(f"{host_id}: its host key cannot decrypt: {error}") from None
    return Sops(path, _home(run))


def _home(run: Run) -> Path:
    home = run.directory / "home"
    home.mkdir(mode=0o700, exist_ok=True)
    return home
