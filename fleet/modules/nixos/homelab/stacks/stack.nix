# The options of one stack.
{
  cfg,
  compose,
  pkgs,
}: {
  config,
  lib,
  name,
  ...
}: let
  inherit (lib) mkOption types;
  stack = name;
  seconds = default: description:
    mkOption {
      type = types.ints.positive;
      inherit default description;
    };
in {
  options = {
    enable = mkOption {
      type = types.bool;
      default = true;
      description = "Whether it runs.";
    };
    description = mkOption {
      type = types.singleLineStr;
      default = name;
      description = "What it is, in a few words.";
    };
    services = mkOption {
      type = types.attrsOf (types.submodule (import ./service.nix {inherit cfg;}));
      description = "Its containers by name; they reach each other by that name.";
    };
    networks = mkOption {
      default = {};
      description = "Networks beside the one that all containers of the stack share, `default`.";
      type = types.attrsOf (types.submodule {
        options = {
          internal = mkOption {
            type = types.bool;
            default = false;
            description = "No way out of it: for databases.";
          };
          external = mkOption {
            type = types.bool;
            default = false;
            description = "Shared with other stacks that name it; made when it is not there, never removed.";
          };
        };
      });
    };
    secrets = mkOption {
      default = {};
      description = "Env files (NAME=value lines) in a sops file; a container gets those that its `secrets` names.";
      type = types.attrsOf (types.submodule ({
        config,
        name,
        ...
      }: {
        options = {
          sopsFile = mkOption {
            type = types.nullOr types.path;
            default = cfg.sopsFile;
            defaultText = lib.literalExpression "config.homelab.docker.sopsFile";
            description = "The encrypted file, as a path.";
          };
          format = mkOption {
            type = types.enum ["yaml" "json" "dotenv" "binary"];
            default = "yaml";
            description = "Of YAML and JSON one key is taken, of the others the whole file.";
          };
          key = mkOption {
            type = types.str;
            defaultText = "<stack>/<secret>";
            description = "Which key, `a/b` being b below a.";
          };
        };
        config.key = lib.mkDefault (
          if lib.elem config.format ["yaml" "json"]
          then "${stack}/${name}"
          else ""
        );
      }));
    };
    startTimeout = seconds 480 "Seconds in which images have to be there and every container healthy. Less than a deployment may take (activation_deadline), so that the report names the stack.";
    stopTimeout = seconds 60 "Seconds in which a container has to end by itself.";

    compose = mkOption {
      type = types.attrsOf types.anything;
      readOnly = true;
      description = "What docker compose reads.";
    };
    composeFile = mkOption {
      type = types.package;
      readOnly = true;
      description = "The same as a file; JSON is YAML.";
    };
  };

  config = {
    compose = compose.text name config;
    composeFile = pkgs.writeText "compose-${name}.json" (builtins.toJSON config.compose);
  };
}
