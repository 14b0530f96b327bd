# Builds a NixOS machine or a home from an entry of hosts.nix.
{
  inputs,
  self,
  system,
  allHosts,
}: let
  inherit (inputs) nixpkgs;
  inherit (nixpkgs) lib;
  overlays = import ./overlays.nix;

  # Further arguments for modules. `hostname` is the host's id in hosts.nix, which may differ from its real hostname,
  # hostConfig.hostname.
  specialArgs = hostname: hostConfig: {
    inherit inputs hostname allHosts system hostConfig;
    flake-root = self;
  };

  # The files encrypted with sops. A path literal: only the files that are used go into the store.
  secrets = {homelab.fleet.secrets = ../secrets;};

  # `nix run nixpkgs#…` and `<nixpkgs>` on a machine refer to the nixpkgs that it was built from.
  registry = {
    nix.registry.nixpkgs.flake = nixpkgs;
    nix.nixPath = ["nixpkgs=flake:nixpkgs"];
  };
in {
  # A whole NixOS machine. The fleet's revision is recorded on it, but not part of it: every commit would change every
  # machine.
  mkNixosSystem = hostname: hostConfig:
    nixpkgs.lib.nixosSystem {
      inherit system;
      specialArgs = specialArgs hostname hostConfig;
      modules = [
        inputs.home-manager.nixosModules.home-manager
        inputs.sops-nix.nixosModules.sops
        inputs.disko.nixosModules.disko
        registry
        secrets
        ../modules/nixos
        ../modules/nixos/profiles/base.nix
        hostConfig.configurationFile
        {
          nixpkgs.overlays = overlays;
          home-manager = {
            useGlobalPkgs = true;
            useUserPackages = true;
            extraSpecialArgs = specialArgs hostname hostConfig;
            sharedModules = [inputs.sops-nix.homeManagerModules.sops secrets ../modules/home-manager];
            users = lib.optionalAttrs (hostConfig ? homeFile) {${hostConfig.user} = hostConfig.homeFile;};
          };
        }
      ];
    };

  # The home of a user on a machine that is managed otherwise.
  mkHomeConfiguration = hostname: hostConfig:
    inputs.home-manager.lib.homeManagerConfiguration {
      pkgs = import nixpkgs {inherit system overlays;};
      extraSpecialArgs = specialArgs hostname hostConfig;
      modules = [
        inputs.sops-nix.homeManagerModules.sops
        registry
        secrets
        ../modules/home-manager
        hostConfig.homeFile
      ];
    };
}
