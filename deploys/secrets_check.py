"""Proves that machines and homes have decrypted what they declare, each with its own key, as declared. Changes nothing.

    pyinfra -y inventory.py deploys/secrets_check.py --limit nixos

Paths, modes, owners and salted hashes are reported, never content. What is wrong is said with what helps, and ends with
status 1; what nobody knows with 5.
"""

from nixherd.deploys import secrets_check

secrets_check()
