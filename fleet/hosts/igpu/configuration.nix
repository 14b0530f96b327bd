# igpu, called igp: VM 109, with the AMD iGPU passed through.
{pkgs, ...}: {
  imports = [./hardware-configuration.nix];

  boot.loader.grub.enable = true;
  boot.loader.grub.device = "/dev/sda";
  services.qemuGuest.enable = true;

  boot.kernelPackages = pkgs.linuxPackages_latest;
  boot.kernel.sysctl."fs.inotify.max_user_watches" = 2097152;
  hardware.graphics.enable = true;

  system.stateVersion = "25.11";
}
