"""What follows on provisioning: trust (unless deploys/enroll.py came before), overview, protection, proof.

    pyinfra inventory.py deploys/post_provision.py --limit dev

The host key becomes an age recipient, the secret files are encrypted to it, hosts.nix pins it, docs/machines.md shows
it, the guest becomes readonly (`--data protect=False`: not), in one commit. Then the private key is deleted here.
"""

from nixherd.deploys import post_provision

post_provision()
