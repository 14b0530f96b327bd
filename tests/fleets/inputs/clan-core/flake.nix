{
  description = "A stand-in for clan-core: machines by directories and by an inventory";

  inputs.nixpkgs.url = "nixpkgs";

  outputs = {nixpkgs, ...}: {
    lib.clan = {
      self,
      meta,
      inventory ? {},
      machines ? {},
      specialArgs ? {},
      ...
    }: let
      inherit (nixpkgs) lib;
      place = self + "/machines";
      found = lib.optionalAttrs (builtins.pathExists place) (lib.filterAttrs (_: kind: kind == "directory") (builtins.readDir place));
      names = lib.unique (builtins.attrNames found ++ builtins.attrNames (inventory.machines or {}) ++ builtins.attrNames machines);
      option = lib.mkOption {
        type = lib.types.nullOr lib.types.str;
        default = null;
      };
      machine = name:
        lib.nixosSystem {
          inherit specialArgs;
          modules = [
            {
              options.clan.core.networking.targetHost = option;
              options.clan.core.networking.buildHost = option;
              config.networking.hostName = lib.mkDefault name;
              config.clan.core.networking.targetHost = lib.mkDefault (inventory.machines.${name}.deploy.targetHost or null);
            }
            (machines.${name} or {})
            (lib.optionalAttrs (found ? ${name}) (import (place + "/${name}/configuration.nix")))
          ];
        };
    in {
      config = {
        inherit inventory;
        nixosConfigurations = lib.genAttrs names machine;
        nixosModules = lib.genAttrs (map (name: "clan-machine-${name}") names) (_: {});
        clanInternals.machines = throw "never looked at";
      };
    };
  };
}
