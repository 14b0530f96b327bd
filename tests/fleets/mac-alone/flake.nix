{
  inputs = {
    nixpkgs.url = "github:NixOS/nixpkgs/nixpkgs-unstable";
    nix-darwin.url = "github:nix-darwin/nix-darwin";
  };

  outputs = {nix-darwin, ...}: {
    darwinConfigurations."Als-MacBook-Pro" = nix-darwin.lib.darwinSystem {modules = [./darwin.nix];};
  };
}
