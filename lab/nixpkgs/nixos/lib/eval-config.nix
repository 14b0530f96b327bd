# `nixpkgs.lib.nixosSystem`: a NixOS configuration from modules.
{
  lib ? import ../../lib,
  modules,
  system ? null,
  specialArgs ? {},
  pkgs ? null,
  extraModules ? [],
  baseModules ? import ../modules/module-list.nix,
  ...
}: let
  given = {
    _file = "eval-config.nix";
    config._module.args = {inherit modules extraModules;};
    config.nixpkgs =
      lib.optionalAttrs (system != null) {system = lib.mkDefault system;}
      // lib.optionalAttrs (pkgs != null) {inherit pkgs;};
  };
  evaluated = lib.evalModules {
    class = "nixos";
    modules = baseModules ++ [given] ++ extraModules ++ modules;
    specialArgs =
      {
        modulesPath = toString ../modules;
        inherit baseModules;
      }
      // specialArgs;
  };
  # Wrong configurations fail, with every failed assertion, when something is built from them.
  withChecks = result:
    result
    // {
      inherit (result._module.args) pkgs;
      inherit lib;
      extendModules = more: withChecks (result.extendModules more);
    };
in
  withChecks evaluated
