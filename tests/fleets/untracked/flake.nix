{
  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-25.11";

  outputs = {nixpkgs, ...}: {
    nixosConfigurations.web = nixpkgs.lib.nixosSystem {modules = [./hosts/web.nix];};
  };
}
