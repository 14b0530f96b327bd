"""Takes machines into the fleet's trust, before they exist or after: host key, age recipient, secret files, hosts.nix.

    pyinfra inventory.py deploys/enroll.py --limit dev
    pyinfra --dry inventory.py deploys/enroll.py --limit dev     # the plan; nothing is written

Before provisioning it generates the machine's host key, so that the machine decrypts its secrets at its first boot.
Everything is verified before any file is replaced, and ends in one commit (`--data commit=False`: in none).
"""

from nixherd.deploys import enroll

enroll()
