"""Makes managed VMs out of nothing: clone, configure, boot, find, install, prove.

    pyinfra inventory.py deploys/provision.py --limit dev
    pyinfra --dry inventory.py deploys/provision.py --limit dev      # the plan; sends no changing request

Each row observes before it acts, so a run that was interrupted anywhere is finished by running it again.
"""

from pyinfra import local

from nixherd.pyinfra_glue.deploy_file import deploy_file
from operations import proxmox, sops

deploy_file("provision", from_flake=True, makes_machines=True, by_hypervisor=True)

proxmox.validate(name="validate: definitions, template, firmware, storage, VMID")
proxmox.clone(name="clone: the template")
proxmox.configure(name="configure: cores, memory, name and mark")
proxmox.resize(name="resize: the disk")
proxmox.cloud_init(name="cloud-init: user and keys")
proxmox.start(name="start: switch it on")
proxmox.address(name="address: find it, read its host key, connect")
local.include("./install.py")
sops.decrypted(name="secrets: what the machine has decrypted", strict=False)
