{
  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-25.11";

  outputs = {nixpkgs, ...}: {
    nixosConfigurations = builtins.listToAttrs (map (host: {
      inherit (host) name;
      value = nixpkgs.lib.nixosSystem {
        inherit (host) system;
        modules = [./hardware-configuration.nix {networking.hostName = host.name;}];
      };
    }) (import ./hosts.nix));
  };
}
