# The installer as a tarball that a running Linux unpacks and starts with kexec. The directory contains
# nixos-kexec-installer-noninteractive-x86_64-linux.tar.gz.
#
# It is nixos-images' own installer plus the QEMU guest agent: an installer may get a different address than the system
# that started it, and the agent reports the new one.
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
