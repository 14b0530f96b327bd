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

  # The iGPU wants the newest driver, from the start of the boot on.
  boot.kernelPackages = pkgs.linuxPackages_latest;
  hardware.amdgpu.initrd.enable = true;
  hardware.enableRedistributableFirmware = true;
  hardware.graphics.enable = true;
  # Who transcodes on it, and looks at how it does.
  users.users.${hostConfig.user}.extraGroups = ["video" "render"];
  environment.systemPackages = [pkgs.libva-utils pkgs.radeontop];

  # A media library is watched file by file.
  boot.kernel.sysctl."fs.inotify.max_user_watches" = 2097152;

  homelab.update = {
    enable = true;
    updateDates = "03:00";
    gcDates = "03:30";
    rebootOnKernelUpdate = true;
  };

  system.stateVersion = "25.11";
}
