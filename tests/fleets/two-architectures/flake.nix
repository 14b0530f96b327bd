{
  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-25.11";

  outputs = {nixpkgs, ...}: let
    host = name: system:
      nixpkgs.lib.nixosSystem {
        inherit system;
        modules = [
          ./hardware-configuration.nix
          {
            networking.hostName = name;
            nixpkgs.hostPlatform = system;
          }
        ];
      };
  in {
    nixosConfigurations = {
      web = host "web" "x86_64-linux";
      pi = host "pi" "aarch64-linux";
    };
  };
}
