{
  inputs = {
    nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";
    flake-utils.url = "github:numtide/flake-utils";
  };

  outputs = {
    self,
    nixpkgs,
    flake-utils,
    ...
  }:
    flake-utils.lib.eachDefaultSystem (system: {
      packages.nixosConfigurations.web = nixpkgs.lib.nixosSystem {
        inherit system;
        modules = [./hardware-configuration.nix {networking.hostName = "web";}];
      };
    });
}
