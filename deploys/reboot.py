"""Reboots who needs it: where the next boot brings another kernel, initrd, modules or systemd. One of a role at a time.

    pyinfra -y inventory.py deploys/reboot.py --limit nixos
    pyinfra -y inventory.py deploys/reboot.py --limit dev --data force=true

Each reboot is proven by another boot_id, the system that runs, and units and checks as before. A readonly VM is only
listed, with the command for its owner.
"""

from nixherd.deploys import reboot

reboot()
