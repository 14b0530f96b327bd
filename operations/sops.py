"""Secret files encrypted anew, and the proof that a machine decrypts its own."""

import secrets as random

from pyinfra import host
from pyinfra.api import operation

from facts.sops import Secret, Secrets
from nixherd.arguments import flag_of
from nixherd.errors import FleetError
from nixherd.fleet.load import load_fleet
from nixherd.nix.commands import Evaluated
from nixherd.trust.enrol import with_rekeys
from nixherd.trust.secrets.store import recipients_of_hosts
from operations.fleet_files import changed_files, store_of
from operations.machine import is_installed, machine_of
from operations.steps import Commands, decide, do, evaluated, executing, fleet_host, session_of

_SALT = random.token_hex(16)


@operation()
def updatekeys() -> Commands:
    """Encrypt every secret file for whom its rule names, all or none, with one commit. Works on the fleet's files."""
    yield from decide(host, _updatekeys)


def _updatekeys() -> Commands:
    said = "every secret file is encrypted for whom its rule names"
    yield from changed_files(host, with_rekeys, "secrets: as .sops.yaml says", otherwise=said)


@operation()
def decrypted(strict: bool = True) -> Commands:
    """Prove that the machine has decrypted each secret that its configuration declares, with its own host key.

    Reported are names and salted hashes. What is missing fails the host; with `strict=False` only where the secret
    files are encrypted for it and it runs what the flake says: before, there is nothing to show.
    """
    yield from decide(host, lambda: _decrypted(flag_of("strict", strict)))


def _decrypted(strict: bool) -> Commands:
    host_id = fleet_host(host).id
    if not fleet_host(host).is_nixos:
        host.noop(f"{host_id} is no NixOS machine; its user's secrets are its own")
        return
    about = evaluated(host)
    if not about.secrets:
        host.noop(f"{host_id} declares no secrets")
        return
    machine = machine_of(host)
    if not is_installed(machine):
        if executing(host):
            raise FleetError(f"{host_id}: no installed system answers; provision it first")
        yield from do(host, f"verify that {host_id} decrypts {len(about.secrets)} secrets", lambda: None)
        return
    found: dict[str, Secret] = host.get_fact(Secrets, salt=_SALT, _sudo=True, _ignore_errors=True) or {}
    missing = [path for path in about.secrets if not (path in found and found[path]["size"])]
    for path in sorted(set(about.secrets) - set(missing)) if executing(host) else ():
        secret = found[path]
        host.log(f"decrypted {path} ({secret['mode']} {secret['owner']}), salted SHA-256 {secret['hash'][:16]}…")
    if missing:
        closed = _not_for(about, missing)
        says = f"{host_id} has not decrypted {', '.join(missing)}: "
        if closed:
            says += f"not encrypted for it: {', '.join(closed)}; enroll it (deploys/enroll.py) and deploy it"
        elif machine and machine["current_system"] != about.toplevel:
            says += "its system is older than the files, which are encrypted for it by now; deploy it"
        else:
            raise FleetError(f"{says}look at `journalctl -b -u sops-install-secrets` and at its activation there")
        if strict:
            raise FleetError(says)
        host.log(says)
    host.noop(f"{host_id} has decrypted {len(about.secrets) - len(missing)} of {len(about.secrets)} secrets")


def _not_for(about: Evaluated, paths: list[str]) -> list[str]:
    """The secret files, of those that these come from, that are not encrypted for the machine as things are now."""
    fleet = load_fleet(session_of(host).fleet.path)
    store = store_of(host, fleet)
    mine = [key for key, host_id in recipients_of_hosts(fleet).items() if host_id == about.host_id]
    files = store.files if store else ()
    can = {
        f"{store.directory}/{file.path}"
        for file in files
        if store and file.encrypted and set(mine) & set(file.encrypted.recipients)
    }
    return sorted({about.secrets[path] for path in paths} - can)
