# The installer as a tarball that a running Linux unpacks and jumps into (kexec). The directory holds
# nixos-kexec-installer-noninteractive-x86_64-linux.tar.gz.
#
# It is nixos-images' own installer with one addition: the QEMU guest agent. An installer may get another address than
# the system it was started from, and the agent is how the new one is learned.
{
  inputs,
  pkgs,
}: let
  installer = pkgs.nixos [
    inputs.nixos-images.nixosModules.kexec-installer
    inputs.nixos-images.nixosModules.noninteractive
    {
      system.kexec-installer.name = "nixos-kexec-installer-noninteractive";
      services.qemuGuest.enable = true;
    }
  ];
in
  installer.config.system.build.kexecInstallerTarball
