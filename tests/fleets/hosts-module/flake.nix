{
  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-25.11";

  outputs = {nixpkgs, ...}: {
    nixosConfigurations.web = nixpkgs.lib.nixosSystem {
      modules = [./hardware-configuration.nix ./hosts.nix {networking.hostName = "web";}];
    };
  };
}
