# Stacks of containers: `homelab.stacks.<name>` becomes a compose file in the store and a unit, stack-<name>.service, that
# runs docker compose on it. ../../../../docker/README.md says how to add one.
{
  config,
  lib,
  options,
  pkgs,
  ...
}: let
  inherit (lib) mkOption types;
  cfg = config.homelab.docker;
  stacks = lib.filterAttrs (_: stack: stack.enable) config.homelab.stacks;
  hasSops = options ? sops;
  sopsName = stack: secret: "stacks/${stack}/${secret}";
  # The env files of a container; checks.nix reports undeclared ones.
  envFiles = stack: service:
    lib.concatMap (secret: lib.optional (hasSops && config.sops.secrets ? ${sopsName stack secret}) config.sops.secrets.${sopsName stack secret}.path)
    service.secrets;
  compose = import ./compose.nix {
    inherit cfg envFiles lib;
    inherit (config.time) timeZone;
  };
  unit = import ./unit.nix {
    inherit cfg lib pkgs;
    docker = config.virtualisation.docker.package;
  };
  checks = import ./checks.nix {inherit cfg config hasSops lib stacks;};
  mounts = lib.unique (lib.concatMap (stack: lib.concatMap (service: map (m: m.source) service.mounts) (lib.attrValues stack.services)) (lib.attrValues stacks));
in {
  options.homelab.docker = {
    dataDirectory = mkOption {
      type = types.path;
      default = "/srv/stacks";
      description = "The directory of all stacks' data: <dataDirectory>/<stack>/<name of the data>.";
    };
    address = mkOption {
      type = types.str;
      default = "127.0.0.1";
      example = "0.0.0.0";
      description = ''
        The address that published ports listen on, unless a port sets its own. Docker publishes past the firewall of
        NixOS, so the default admits only the machine itself.
      '';
    };
    sopsFile = mkOption {
      type = types.nullOr types.path;
      default = null;
      example = lib.literalExpression "../../secrets/stacks.yaml";
      description = "The default sops file of secrets.";
    };
    backupPaths = mkOption {
      type = types.listOf types.str;
      readOnly = true;
      description = "What a backup must include: the data of all stacks, except where backup = false.";
    };
  };

  options.homelab.stacks = mkOption {
    default = {};
    description = "Stacks of containers, run by docker compose.";
    type = types.attrsOf (types.submodule (import ./stack.nix {inherit cfg compose pkgs;}));
  };

  config = lib.mkMerge [
    {homelab.docker.backupPaths = lib.concatLists (lib.mapAttrsToList (name: stack: compose.backupPaths name stack) stacks);}
    (lib.mkIf (stacks != {}) ({
        assertions = checks;
        virtualisation.docker.enable = lib.mkDefault true;
        # For users: docker compose -f /etc/stacks/<name>.json ps
        environment.etc = lib.mapAttrs' (name: stack: lib.nameValuePair "stacks/${name}.json" {source = stack.composeFile;}) stacks;
        systemd.services = lib.mkMerge [
          (lib.mapAttrs' (name: stack: lib.nameValuePair "stack-${name}" (unit name stack)) stacks)
          # After a power failure docker restarts containers: wait until their data directory is mounted.
          {docker.unitConfig.WantsMountsFor = map unit.quote ([cfg.dataDirectory] ++ mounts);}
        ];
      }
      // lib.optionalAttrs hasSops {
        sops.secrets = lib.mkMerge (lib.mapAttrsToList (name: stack:
          lib.mapAttrs' (secret: s:
            lib.nameValuePair (sopsName name secret) {
              inherit (s) format key sopsFile;
              reloadUnits = ["stack-${name}.service"];
            })
          (lib.filterAttrs (_: s: s.sopsFile != null) stack.secrets))
        stacks);
      }))
  ];
}
