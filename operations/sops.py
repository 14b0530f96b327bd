"""Secret files encrypted anew, and the proof that a machine decrypts its own."""

import secrets as random

from pyinfra import host

from facts.sops import Secret, Secrets
from nixherd.base.errors import FleetError
from nixherd.base.names import flag_of
from nixherd.deploy.machine import output_of
from nixherd.pyinfra_glue.engine import PyinfraMachine
from nixherd.pyinfra_glue.fleet_files import changed_files, not_encrypted_for
from nixherd.pyinfra_glue.hosts import evaluated, executing, fleet_host
from nixherd.pyinfra_glue.installing import is_installed, machine_of
from nixherd.pyinfra_glue.operation import Change, NoChange, operation
from nixherd.trust.recipients import with_rekeys

_SALT = random.token_hex(16)


@operation()
def updatekeys() -> Change | NoChange:
    """Encrypt every secret file for whom its rule names, all or none, with one commit. Works on the fleet's files."""
    otherwise = "every secret file is encrypted for whom its rule names"
    return changed_files(host, with_rekeys, "secrets: as .sops.yaml says", otherwise=otherwise)


@operation()
def decrypted(strict: bool = True) -> Change | NoChange:
    """Prove that the machine has decrypted each secret that its configuration declares, with its own host key.

    Reported are names and salted hashes. What is missing fails the host; with `strict=False` only where the secret
    files are encrypted for it and it runs what the flake says: before, there is nothing to show.
    """
    is_strict, host_id = flag_of("strict", strict), fleet_host(host).id
    if not fleet_host(host).is_nixos:
        return NoChange(f"{host_id} does not run NixOS; its user's secrets are its own")
    config = evaluated(host)
    declared = {secret.path: secret.file or str(secret.origin) for secret in config.declared.of_system}
    if not declared:
        return NoChange(f"{host_id} declares no secrets")
    machine = machine_of(host)
    if not is_installed(machine):
        if executing(host):
            raise FleetError(f"{host_id}: no installed system answers; provision it first")
        return Change(f"verify that {host_id} decrypts {len(declared)} secrets", lambda: None)
    secrets = _ask_for_secrets()
    missing = [path for path in declared if not (path in secrets and secrets[path]["size"])]
    for path in sorted(set(declared) - set(missing)) if executing(host) else ():
        secret = secrets[path]
        host.log(f"decrypted {path} ({secret['mode']} {secret['owner']}), salted SHA-256 {secret['hash'][:16]}…")
    if missing:
        closed = not_encrypted_for(host, [declared[path] for path in missing])
        message = f"{host_id} has not decrypted {', '.join(missing)}: "
        if closed:
            message += f"not encrypted for it: {', '.join(closed)}; enroll it (deploys/enroll.py) and deploy it"
        elif machine and machine["current_system"] != config.toplevel:
            message += "its system is older than the files, which are encrypted for it by now; deploy it"
        else:
            raise FleetError(f"{message}look at `journalctl -b -u sops-install-secrets` and at its activation there")
        if is_strict:
            raise FleetError(message)
        host.log(message)
    return NoChange(f"{host_id} has decrypted {len(declared) - len(missing)} of {len(declared)} secrets")


def _ask_for_secrets() -> dict[str, Secret]:
    """Return what the machine has decrypted. FleetError without an answer, which a fact would give as no secret."""
    fact = Secrets()
    output = output_of(PyinfraMachine(host), fact.command(_SALT), what="reading its secrets", sudo=True)
    return fact.process(output.splitlines())
