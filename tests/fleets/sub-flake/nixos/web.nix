{
  imports = [./hardware-configuration.nix ../common/motd.nix];
  networking.hostName = "web";
}
