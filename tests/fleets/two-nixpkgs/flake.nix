{
  inputs = {
    nixpkgs.url = "github:NixOS/nixpkgs/nixos-25.11";
    nixpkgs-unstable.url = "github:NixOS/nixpkgs/nixos-unstable";
  };

  outputs = {
    nixpkgs,
    nixpkgs-unstable,
    ...
  }: let
    unstable = _: previous: {
      unstable = import nixpkgs-unstable {
        inherit (previous) system;
        config.allowUnfree = true;
      };
    };
  in {
    nixosConfigurations = {
      web = nixpkgs.lib.nixosSystem {
        modules = [
          ./hardware-configuration.nix
          ({pkgs, ...}: {
            networking.hostName = "web";
            nixpkgs.overlays = [unstable];
            environment.systemPackages = [pkgs.unstable.git];
          })
        ];
      };
      desk = nixpkgs-unstable.lib.nixosSystem {
        modules = [./hardware-configuration.nix {networking.hostName = "desk";}];
      };
    };
  };
}
