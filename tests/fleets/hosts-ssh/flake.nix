{
  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-25.11";

  outputs = {nixpkgs, ...}: {
    nixosConfigurations = builtins.mapAttrs (name: host:
      nixpkgs.lib.nixosSystem {
        specialArgs = {inherit host;};
        modules = [./hardware-configuration.nix {networking.hostName = name;}];
      }) (import ./hosts.nix);
  };
}
