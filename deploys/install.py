"""Installs NixOS on any machine that SSH reaches: installer (kexec), disko, nixos-install, reboot, proof.

    pyinfra inventory.py deploys/install.py --limit HOST

For a machine that no hypervisor knows of (bare metal, another provider) say which host key it shows now and
where it is:

    pyinfra inventory.py deploys/install.py --limit HOST \\
        --data ssh_hostname=ADDRESS --data host_key='ssh-ed25519 …' --data install_user=root

Further files for the new root come from the data `extra_files`: a directory, or `{"/etc/x": "local/file"}`. With the
data `hardware_configuration=true` (or a path in the flake) the installer generates hardware-configuration.nix first.
`phases=kexec,disko,install` leaves the reboot out; docs/provisioning.md has the rest. `deploys/provision.py` ends with
these steps, and `nixherd install` is a front of them.
"""

from nixherd.deploys import install

install()
