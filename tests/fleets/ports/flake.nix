{
  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-25.11";

  outputs = {nixpkgs, ...}: let
    host = name: port:
      nixpkgs.lib.nixosSystem {
        modules = [
          ./hardware-configuration.nix
          {
            networking.hostName = name;
            services.openssh.ports = [port];
          }
        ];
      };
  in {
    nixosConfigurations = {
      web = host "web" 22;
      db = host "db" 2222;
    };
  };
}
