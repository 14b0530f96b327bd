"""Whose keys sops decrypts with: the operator's, or a host's while its private key is here."""

import os
from pathlib import Path

from nixherd.errors import FleetError
from nixherd.files import expanded, write_whole
from nixherd.session import Session
from nixherd.ssh.ssh_to_age import identity
from nixherd.trust.secrets.sops import Sops, identity_text

USUAL = "~/.config/sops/age/keys.txt"


def identity_file(given: str | None) -> Path:
    """The operator's identity: as given, as SOPS_AGE_KEY_FILE says, or in sops' usual place."""
    return expanded(given or os.environ.get("SOPS_AGE_KEY_FILE") or USUAL).absolute()


def operator(session: Session, path: Path) -> Sops:
    """sops as the operator; an SSH key is converted for this run only. FleetError when it is no identity."""
    text = identity_text(path)
    if text != path.read_text():
        path = session.directory / "identity"
        write_whole(path, text)
    return Sops(path, _home(session))


def nobody(session: Session) -> Sops:
    """sops for what needs no identity: to encrypt."""
    return Sops(Path(os.devnull), _home(session))


def as_host(session: Session, host_id: str) -> Sops | None:
    """sops as a host whose private key is here; None when it is not."""
    pair = session.state_of(host_id).host_key()
    if pair is None:
        return None
    path = session.directory / f"identity-of-{host_id}"
    try:
        write_whole(path, identity(pair.private_openssh) + "\n")
    except FleetError as error:
        raise FleetError(f"{host_id}: its host key cannot decrypt: {error}") from None
    return Sops(path, _home(session))


def _home(session: Session) -> Path:
    home = session.directory / "home"
    home.mkdir(mode=0o700, exist_ok=True)
    return home
