"""Secret files encrypted anew, and the proof that a machine decrypts its own."""

import secrets as random

from pyinfra import host
from pyinfra.api import operation

from facts.sops import Secret, Secrets
from fleetwright.enrolment import Wanted, with_rekeys
from fleetwright.errors import FleetError
from fleetwright.nix import Evaluated
from fleetwright.secrets.plan import recipients_of_hosts
from operations.machine import is_installed, machine_of
from operations.steps import Commands, decide, do, evaluated, executing, fleet_host, session_of
from operations.trust import flag, fleet_files, publish_changes, store_of

_SALT = random.token_hex(16)


@operation()
def updatekeys() -> Commands:
    """Encrypt every secret file for whom its rule names, all or none, with one commit. Works on the fleet's files."""
    yield from decide(host, _updatekeys)


def _updatekeys() -> Commands:
    session = session_of(host)
    with fleet_files(session):
        steps = with_rekeys(Wanted(session.fleet, store_of(host, session.fleet))).steps
    if not steps:
        host.noop("every secret file is encrypted for whom its rule names")
        return
    subject = "secrets: as .sops.yaml says"
    yield from do(host, "; ".join(steps), lambda: publish_changes(host, with_rekeys, subject))


@operation()
def decrypted(strict: bool = True) -> Commands:
    """Prove that the machine has decrypted each secret that its configuration declares, with its own host key.

    Reported are names and salted hashes. What is missing fails the host; with `strict=False` only where the secret
    files are encrypted for it already: a machine that is not enrolled yet has nothing to show.
    """
    yield from decide(host, lambda: _decrypted(flag("strict", strict)))


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
    for path in sorted(set(about.secrets) - set(missing)):
        secret = found[path]
        host.log(f"decrypted {path} ({secret['mode']} {secret['owner']}), salted SHA-256 {secret['hash'][:16]}…")
    if missing:
        why = _why(about, missing)
        if strict or not why.endswith(NOT_ENROLLED):
            raise FleetError(f"{host_id} has not decrypted {', '.join(missing)}: {why}")
        host.log(f"{host_id} has not decrypted {', '.join(missing)}: {why}")
    host.noop(f"{host_id} has decrypted {len(about.secrets) - len(missing)} of {len(about.secrets)} secrets")


NOT_ENROLLED = "enroll it (deploys/enroll.py) and deploy it"


def _why(about: Evaluated, missing: list[str]) -> str:
    session = session_of(host)
    store = store_of(host, session.fleet)
    recipients = {host_id: key for key, host_id in recipients_of_hosts(session.fleet).items()}
    mine = recipients.get(about.host_id)
    if store is None:
        return "the fleet has no secrets directory"
    can = {store.path(file.path) for file in store.files if file.encrypted and mine in file.encrypted.recipients}
    files = sorted({about.secrets[path] for path in missing})
    closed = [file for file in files if file not in can]
    if closed:
        return f"{', '.join(closed)} is not encrypted for it; {NOT_ENROLLED}"
    return "its system is older than the files, which are encrypted for it by now; deploy it"
