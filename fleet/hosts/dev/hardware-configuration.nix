# A QEMU guest; file systems come from disko.nix.
{
  lib,
  modulesPath,
  ...
}: {
  imports = [(modulesPath + "/profiles/qemu-guest.nix")];

  boot.initrd.availableKernelModules = ["ahci" "xhci_pci" "virtio_pci" "virtio_scsi" "sd_mod" "sr_mod"];
  nixpkgs.hostPlatform = lib.mkDefault "x86_64-linux";
}
