# igpu, called igp: VM 109, with the AMD iGPU passed through.
{
  hostConfig,
  pkgs,
  ...
}: {
  imports = [./hardware-configuration.nix];

  boot.loader.systemd-boot.enable = false;
  boot.loader.grub.enable = true;
  boot.loader.grub.device = "/dev/sda";
  services.qemuGuest.enable = true;

  # The iGPU needs the newest driver, loaded early in the boot.
  boot.kernelPackages = pkgs.linuxPackages_latest;
  hardware.amdgpu.initrd.enable = true;
  hardware.enableRedistributableFirmware = true;
  hardware.graphics.enable = true;
  # Users and tools for transcoding.
  users.users.${hostConfig.user}.extraGroups = ["video" "render"];
  environment.systemPackages = [pkgs.libva-utils pkgs.radeontop];

  # A media library needs one watch per file.
  boot.kernel.sysctl."fs.inotify.max_user_watches" = 2097152;

  homelab.update = {
    enable = true;
    updateDates = "03:00";
    gcDates = "03:30";
    rebootOnKernelUpdate = true;
  };

  system.stateVersion = "25.11";
}
