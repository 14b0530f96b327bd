{lib, ...}: {
  web = lib.nixosSystem {modules = [./hardware-configuration.nix {networking.hostName = "web";}];};
}
