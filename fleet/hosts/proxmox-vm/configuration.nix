# proxmox-vm, called doc1: VM 104, the fleet's cache server, CI runner and Docker host.
{
  imports = [
    ./docker.nix
    ./hardware-configuration.nix
  ];

  boot.loader.grub.enable = true;
  boot.loader.grub.device = "/dev/sda";
  services.qemuGuest.enable = true;

  # The way out is a tunnel.
  networking.interfaces.ens18.mtu = 1400;

  virtualisation.docker.enable = true;

  system.autoUpgrade.dates = "03:00";
  nix.gc = {
    automatic = true;
    dates = "03:30";
  };

  system.stateVersion = "25.11";
}
