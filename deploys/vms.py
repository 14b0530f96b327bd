"""Brings all managed guests to their definitions.

    pyinfra --dry inventory.py deploys/vms.py                                  # what differs, and what would be done
    pyinfra -y inventory.py deploys/vms.py --data allow_reboot=True            # what needs a reboot is rebooted

The hypervisor alone is asked: no machine needs to answer. Guests that may not be changed show how they differ and are
left alone; what cannot be done is said, and fails its host. `--data snapshot=keep` or `remove` takes a snapshot before.
"""

from nixherd.deploys import vms

vms()
