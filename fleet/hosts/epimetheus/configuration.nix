# epimetheus: the desktop.
{
  imports = [./hardware-configuration.nix];

  networking.networkmanager.enable = true;

  # A Hyprland session; its bar, idle daemon and screen lock are in home.nix. The lock must be able to check a password,
  # the file manager to mount a disk, and themed programs to save their settings.
  programs.hyprland = {
    enable = true;
    withUWSM = true;
  };
  programs.dconf.enable = true;
  security.pam.services.hyprlock = {};

  services = {
    displayManager.sddm = {
      enable = true;
      wayland.enable = true;
    };
    udisks2.enable = true;
    pipewire = {
      enable = true;
      alsa.enable = true;
      pulse.enable = true;
    };
  };

  # The disk is booted both on the bare machine and, for other purposes, in a VM.
  homelab.tailscale.tpmOverride = true;

  system.stateVersion = "25.11";
}
