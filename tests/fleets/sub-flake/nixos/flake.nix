{
  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";

  outputs = {nixpkgs, ...}: {
    nixosConfigurations.web = nixpkgs.lib.nixosSystem {modules = [./web.nix];};
  };
}
