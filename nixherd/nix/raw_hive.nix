# From a flake's outputs to the nodes of `colmena`, a hive that is not evaluated yet: each as a NixOS configuration, made
# with what colmena's manual says a node gets. Of the options of `deployment` those that
# nixherd reads are declared; others may be set, and mean nothing.
outputs: let
  hive = outputs.colmena;
  meta = hive.meta or hive.network or {};
  reserved = ["defaults" "meta" "network"];
  names = builtins.filter (name: !(builtins.elem name reserved)) (builtins.attrNames hive);
  byName = make:
    builtins.listToAttrs (map (name: {
        inherit name;
        value = make name;
      })
      names);

  nixpkgsOf = name: let
    isNodes = (meta.nodeNixpkgs or {}) ? ${name};
    place =
      if isNodes
      then "colmena.meta.nodeNixpkgs.${name}"
      else "colmena.meta.nixpkgs";
    given =
      if isNodes
      then meta.nodeNixpkgs.${name}
      else meta.nixpkgs or null;
  in
    if builtins.isAttrs given && given ? lib && given ? path
    then given
    else throw "${place} is not a package set; write ${place} = import nixpkgs { system = \"x86_64-linux\"; };";

  deployment = {
    name,
    lib,
    ...
  }: let
    inherit (lib) mkOption types;
    option = type: default: mkOption {inherit type default;};
  in {
    options.deployment = mkOption {
      default = {};
      type = types.submodule {
        freeformType = types.lazyAttrsOf types.unspecified;
        options = {
          allowLocalDeployment = option types.bool false;
          buildOnTarget = option types.bool false;
          keys = option (types.lazyAttrsOf types.unspecified) {};
          privilegeEscalationCommand = option (types.listOf types.str) ["sudo" "-H" "--"];
          replaceUnknownProfiles = option types.bool true;
          sshOptions = option (types.listOf types.str) [];
          tags = option (types.listOf types.str) [];
          targetHost = option (types.nullOr types.str) name;
          targetPort = option (types.nullOr types.int) null;
          targetUser = option (types.nullOr types.str) "root";
        };
      };
    };
  };

  # Modules look at one another by `nodes`, in which undeclared options are not an error.
  node = isChecked: name: let
    pkgs = nixpkgsOf name;
    here = hive.${name};
    packages = {lib, ...}: {
      nixpkgs = {
        overlays = lib.mkBefore pkgs.overlays;
        config = lib.mkBefore pkgs.config;
      };
    };
  in
    import (pkgs.path + "/nixos/lib/eval-config.nix") {
      inherit (pkgs.stdenv.hostPlatform) system;
      modules =
        [packages deployment (hive.defaults or {})]
        ++ (
          if isChecked
          then []
          else [{_module.check = false;}]
        )
        ++ (
          if builtins.isList here
          then here
          else [here]
        );
      specialArgs =
        (meta.specialArgs or {})
        // ((meta.nodeSpecialArgs or {}).${name} or {})
        // {
          inherit name;
          nodes = byName (node false);
        };
    };
in
  byName (node true)
