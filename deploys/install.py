"""Installs NixOS on any machine that SSH reaches: installer (kexec), disko, nixos-install, reboot, proof.

    pyinfra inventory.py deploys/install.py --limit HOST

For a machine that no hypervisor knows of (bare metal, another provider) say which host key it shows now and
where it is:

    pyinfra inventory.py deploys/install.py --limit HOST \\
        --data ssh_hostname=ADDRESS --data host_key='ssh-ed25519 …' --data install_user=root

Further files for the new root come from the data `extra_files`, `{"/etc/x": "local/file"}`. With the data
`hardware_configuration=true` (or a path in the flake) the installer generates hardware-configuration.nix first.
`deploys/provision.py` ends with these steps.
"""

from pyinfra import host

from nixherd.pyinfra_glue.deploy_file import deploy_file
from operations import disko, installer, nixos

deploy_file("install", from_flake=True, makes_machines=True, by_hypervisor=True)

installer.boot(name="installer: boot the NixOS installer by kexec")
if host.data.get("hardware_configuration"):
    nixos.hardware_configuration(name="hardware: what the machine has", path=host.data.hardware_configuration)
disko.format_disks(name="disko: partition, format and mount the disks")
nixos.install(name="install: NixOS with its host key", extra_files=host.data.get("extra_files"))
nixos.reboot_installed(name="reboot: into the installed system")
nixos.verify(name="verify: path, hostname and revision read back")
