"""Machines in the fleet's trust, and their secrets."""

from pyinfra import host

from nixherd.operations import sops, trust
from nixherd.pyinfra_glue.deploy_file import workflow


@workflow("enroll", by_hypervisor=True)
def enroll() -> None:
    """Take machines into the fleet's trust, before they exist or after: key, recipient, secret files, publicKey."""
    trust.enroll(name="enroll: key, recipient, secret files, publicKey, commit")


@workflow("post-provision", by_hypervisor=True)
def post_provision() -> None:
    """Do what follows on provisioning: trust (unless `enroll` came before), overview, protection, proof."""
    trust.enroll(
        name="trust: key, secret files, publicKey, overview, protection, commit",
        docs=True,
        protect=host.data.get("protect", True),
    )
    trust.forget_key(name="key: the private half leaves the controller")
    sops.decrypted(name="secrets: what the machine has decrypted", strict=False)


@workflow("secrets-check")
def secrets_check() -> None:
    """Prove that machines and homes have decrypted what they declare, each with its own key. Changes nothing."""
    sops.decrypted(name="secrets: decrypted by the machine itself")
