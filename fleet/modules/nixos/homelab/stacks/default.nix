# Stacks of containers: `homelab.stacks.<name>` becomes a compose file in the store and a unit, stack-<name>.service, that
# has docker compose make it so. ../../../../docker/README.md says how one is added.
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
  # The env files of a container; what is not declared is for checks.nix to say.
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
      description = "Where the data of all stacks is: <dataDirectory>/<stack>/<name of the data>.";
    };
    address = mkOption {
      type = types.str;
      default = "127.0.0.1";
      example = "0.0.0.0";
      description = ''
        The address that published ports listen on, unless a port says another. Docker publishes past the firewall of
        NixOS, so nobody but the machine itself gets in unless you say so.
      '';
    };
    sopsFile = mkOption {
      type = types.nullOr types.path;
      default = null;
      example = lib.literalExpression "../../secrets/stacks.yaml";
      description = "The sops file of the secrets that name none of their own.";
    };
    backupPaths = mkOption {
      type = types.listOf types.str;
      readOnly = true;
      description = "What a backup has to hold: the data of all stacks, without what says backup = false.";
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
        # For people: docker compose -f /etc/stacks/<name>.json ps
        environment.etc = lib.mapAttrs' (name: stack: lib.nameValuePair "stacks/${name}.json" {source = stack.composeFile;}) stacks;
        systemd.services = lib.mkMerge [
          (lib.mapAttrs' (name: stack: lib.nameValuePair "stack-${name}" (unit name stack)) stacks)
          # After a power cut docker itself starts what ran: not before what it writes to is mounted.
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
