{lib, ...}: {
  imports = [./hardware-configuration.nix];
  networking.hostName = lib.mkDefault "web";
}
