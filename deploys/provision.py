"""Makes managed VMs out of nothing: clone, configure, boot, find, install, prove.

    pyinfra inventory.py deploys/provision.py --limit dev
    pyinfra --dry inventory.py deploys/provision.py --limit dev      # the plan; sends no changing request

Each row observes before it acts, so a run that was interrupted anywhere is finished by running it again.
"""

from nixherd.deploys import provision

provision()
