{
  description = "A stand-in for colmena: a hive, evaluated";

  inputs.nixpkgs.url = "nixpkgs";

  outputs = _: {
    lib.makeHive = hive: let
      inherit (hive.meta.nixpkgs) lib path;
      names = builtins.filter (name: !(builtins.elem name ["meta" "defaults"])) (builtins.attrNames hive);
      deployment = {name, ...}: {
        options.deployment = lib.mkOption {
          default = {};
          type = lib.types.submodule {
            freeformType = lib.types.lazyAttrsOf lib.types.unspecified;
            options.targetHost = lib.mkOption {
              type = lib.types.nullOr lib.types.str;
              default = name;
            };
            options.targetUser = lib.mkOption {
              type = lib.types.nullOr lib.types.str;
              default = "root";
            };
          };
        };
      };
    in rec {
      __schema = "v0.5";
      nodes = lib.genAttrs names (name:
        import (path + "/nixos/lib/eval-config.nix") {
          modules = [deployment (hive.defaults or {}) hive.${name}];
          specialArgs = hive.meta.specialArgs or {} // {inherit name nodes;};
        });
    };
  };
}
