# wsl: NixOS inside Windows, which manages the disk, the boot loader and the network.
{
  hostConfig,
  inputs,
  lib,
  ...
}: {
  imports = [inputs.nixos-wsl.nixosModules.default];

  wsl.enable = true;
  wsl.defaultUser = hostConfig.user;

  boot.loader.systemd-boot.enable = false;
  services.fstrim.enable = false;
  homelab.tailscale.enable = false;

  nixpkgs.hostPlatform = lib.mkDefault "x86_64-linux";

  system.stateVersion = "25.11";
}
