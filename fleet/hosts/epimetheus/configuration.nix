# epimetheus: the desktop.
{
  imports = [./hardware-configuration.nix];

  networking.networkmanager.enable = true;

  services.desktopManager.plasma6.enable = true;
  services.displayManager.sddm.enable = true;
  services.pipewire = {
    enable = true;
    alsa.enable = true;
    pulse.enable = true;
  };

  # Its disk is started on the bare machine and, for other purposes, in a VM.
  homelab.tailscale.tpmOverride = true;

  system.stateVersion = "25.11";
}
