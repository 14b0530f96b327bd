{
  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-25.11";

  outputs = {nixpkgs, ...}: let
    inherit (nixpkgs.lib) genAttrs nixosSystem;
  in {
    nixosConfigurations = genAttrs ["web" "db" "cache"] (name:
      nixosSystem {
        specialArgs.hostName = name;
        modules = [./hardware-configuration.nix ./hosts/${name}.nix];
      });
  };
}
