"""Proves that machines decrypt the secrets that they declare, each with its own host key. Changes nothing.

    pyinfra -y inventory.py deploys/secrets_check.py --limit nixos

Names and salted hashes are reported, never content.
"""

from nixherd.pyinfra_glue.deploy_file import deploy_file
from operations import sops

deploy_file("secrets-check")

sops.decrypted(name="secrets: decrypted by the machine itself")
