"""What follows on provisioning: trust (unless deploys/enroll.py came before), overview, protection, proof.

    pyinfra inventory.py deploys/post_provision.py --limit dev

The host key becomes an age recipient, the secret files are encrypted to it, hosts.nix pins it, docs/machines.md shows
it, the guest becomes readonly (`--data protect=False`: not), in one commit. Then the private key is deleted here.
"""

from pyinfra import host

from nixherd.pyinfra_glue.deploy_file import deploy_file
from operations import sops, trust

deploy_file("post-provision", by_hypervisor=True)

trust.enroll(
    name="trust: key, secret files, hosts.nix, overview, protection, commit",
    docs=True,
    protect=host.data.get("protect", True),
)
trust.forget_key(name="key: the private half leaves the controller")
sops.decrypted(name="secrets: what the machine has decrypted", strict=False)
