# framework: a Framework 13 laptop.
{
  imports = [./hardware-configuration.nix];

  boot.loader.systemd-boot.enable = true;
  boot.loader.efi.canTouchEfiVariables = true;
  networking.networkmanager.enable = true;

  services.desktopManager.plasma6.enable = true;
  services.displayManager.sddm.enable = true;

  services.fprintd.enable = true;
  services.fwupd.enable = true;
  services.power-profiles-daemon.enable = true;
  # A closed lid sleeps, and hibernates when it stays closed.
  services.logind.settings.Login.HandleLidSwitch = "suspend-then-hibernate";
  systemd.sleep.settings.Sleep.HibernateDelaySec = "1h";

  system.stateVersion = "25.11";
}
