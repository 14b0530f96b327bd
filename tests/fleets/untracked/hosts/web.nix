{
  imports = [../hardware-configuration.nix];
  networking.hostName = "web";
}
