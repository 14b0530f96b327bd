"""Brings machines to what the flake says: evaluated and built once for all, activated under guard, proven, kept.

    pyinfra -y inventory.py deploys/deploy.py --limit nixos
    pyinfra --dry inventory.py deploys/deploy.py               # what would change; copies nothing, activates nothing

A machine on which something goes wrong goes back by itself to the system that ran before. `--data goal=` chooses
switch (the default), boot, test or dry-activate; docs/deploying.md has all that can be said.
"""

from nixherd.deploys import deploy

deploy()
