"""Machines from nothing."""

from collections.abc import Sequence

from pyinfra import host

from nixherd.base.errors import Usage
from nixherd.fleet.groups import PHASES, phases_of
from nixherd.operations import disko, installer, nixos, proxmox, sops
from nixherd.pyinfra_glue.deploy_file import workflow


@workflow("install", from_flake=True, makes_machines=True, by_hypervisor=True)
def install() -> None:
    """Install NixOS on any machine that SSH reaches: installer (kexec), disko, nixos-install, reboot, proof."""
    _install(phases_of(host.data.get("phases")) or PHASES)


@workflow("provision", from_flake=True, makes_machines=True, by_hypervisor=True)
def provision() -> None:
    """Make a managed VM out of nothing: clone, configure, boot, find, install, prove."""
    if host.data.get("phases"):
        raise Usage("phases are for deploys/install.py: a VM is provisioned whole; leave them out")
    proxmox.validate(name="validate: definitions, template, firmware, storage, VMID")
    proxmox.clone(name="clone: the template")
    proxmox.configure(name="configure: cores, memory, name and mark")
    proxmox.resize(name="resize: the disk")
    proxmox.cloud_init(name="cloud-init: user and keys")
    proxmox.start(name="start: switch it on")
    proxmox.address(name="address: find it, read its host key, connect")
    _install()
    sops.decrypted(name="secrets: what the machine has decrypted", strict=False)


def _install(phases: Sequence[str] = PHASES) -> None:
    data = host.data
    if "kexec" in phases:
        installer.boot(name="installer: boot the NixOS installer by kexec")
    if data.get("hardware_configuration"):
        nixos.hardware_configuration(name="hardware: what the machine has", path=data.hardware_configuration)
    if data.get("hardware_report"):
        nixos.hardware_report(name="hardware: what nixos-facter reports", path=data.hardware_report)
    if "disko" in phases:
        disko.format_disks(name="disko: partition, format and mount the disks", keys=data.get("disk_encryption_keys"))
    if "install" in phases:
        if data.get("extra_files"):
            files, owners = data.extra_files, data.get("extra_owners")
            nixos.extra_files(name="files: further ones for the new root", files=files, owners=owners)
        nixos.install(name="install: NixOS with its host key")
    if "reboot" in phases:
        nixos.reboot_installed(name="reboot: into the installed system")
        nixos.verify(name="verify: path, hostname and revision read back")
    else:
        nixos.reached(name="verify: how far the installation is, read back", phase=phases[-1])
