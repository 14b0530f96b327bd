"""Machines from nothing."""

from pyinfra import host

from nixherd.operations import disko, installer, nixos, proxmox, sops
from nixherd.pyinfra_glue.deploy_file import workflow


@workflow("install", from_flake=True, makes_machines=True, by_hypervisor=True)
def install() -> None:
    """Install NixOS on any machine that SSH reaches: installer (kexec), disko, nixos-install, reboot, proof."""
    _install()


@workflow("provision", from_flake=True, makes_machines=True, by_hypervisor=True)
def provision() -> None:
    """Make a managed VM out of nothing: clone, configure, boot, find, install, prove."""
    proxmox.validate(name="validate: definitions, template, firmware, storage, VMID")
    proxmox.clone(name="clone: the template")
    proxmox.configure(name="configure: cores, memory, name and mark")
    proxmox.resize(name="resize: the disk")
    proxmox.cloud_init(name="cloud-init: user and keys")
    proxmox.start(name="start: switch it on")
    proxmox.address(name="address: find it, read its host key, connect")
    _install()
    sops.decrypted(name="secrets: what the machine has decrypted", strict=False)


def _install() -> None:
    installer.boot(name="installer: boot the NixOS installer by kexec")
    if host.data.get("hardware_configuration"):
        nixos.hardware_configuration(name="hardware: what the machine has", path=host.data.hardware_configuration)
    disko.format_disks(name="disko: partition, format and mount the disks")
    nixos.install(name="install: NixOS with its host key", extra_files=host.data.get("extra_files"))
    nixos.reboot_installed(name="reboot: into the installed system")
    nixos.verify(name="verify: path, hostname and revision read back")
