# framework: a Framework 13 laptop.
{inputs, ...}: {
  imports = [
    inputs.nixos-hardware.nixosModules.framework-13-7040-amd
    ./hardware-configuration.nix
    ./sleep.nix
  ];

  networking.networkmanager.enable = true;

  services.desktopManager.plasma6.enable = true;
  services.displayManager.sddm.enable = true;

  services.fprintd.enable = true;
  services.fwupd.enable = true;
  services.power-profiles-daemon.enable = true;

  homelab = {
    # No cache is near the places where it is used.
    nixCaches.profile = "external";
    # Only on mains power and on an unmetered network; it wakes up for it.
    update = {
      enable = true;
      checkAcPower = true;
      checkWifi = true;
      wakeOnUpdate = true;
    };
  };

  system.stateVersion = "25.11";
}
