{
  description = "A stand-in for Home Manager: files, packages and user services that activation really lays out";

  inputs.nixpkgs.url = "nixpkgs";

  outputs = {nixpkgs, ...}: {
    nixosModules.home-manager = ./nixos.nix;
    nixosModules.default = ./nixos.nix;
    lib = {
      # { pkgs, modules, extraSpecialArgs } -> { config, activationPackage }
      homeManagerConfiguration = {
        pkgs,
        modules,
        extraSpecialArgs ? {},
        lib ? pkgs.lib,
        ...
      }: let
        evaluated = import ./eval.nix {inherit lib pkgs modules extraSpecialArgs;};
      in
        evaluated
        // {
          inherit (evaluated.config.home) activationPackage;
          inherit pkgs;
        };
      hm = import ./hm.nix nixpkgs.lib;
    };
  };
}
