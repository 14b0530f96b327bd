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
      description = "Whether the stack runs.";
    };
    description = mkOption {
      type = types.singleLineStr;
      default = name;
      description = "A short description.";
    };
    services = mkOption {
      type = types.attrsOf (types.submodule (import ./service.nix {inherit cfg;}));
      description = "Its containers by name; the name is also their host name in the stack.";
    };
    networks = mkOption {
      default = {};
      description = "Networks in addition to `default`, which all containers of the stack share.";
      type = types.attrsOf (types.submodule {
        options = {
          internal = mkOption {
            type = types.bool;
            default = false;
            description = "Without access to the outside, for databases.";
          };
          external = mkOption {
            type = types.bool;
            default = false;
            description = "Shared with other stacks that name it; created if missing, never removed.";
          };
        };
      });
    };
    secrets = mkOption {
      default = {};
      description = "Env files (NAME=value lines) in a sops file; a container gets those listed in its `secrets`.";
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
            description = "For YAML and JSON one key is used, otherwise the whole file.";
          };
          key = mkOption {
            type = types.str;
            defaultText = "<stack>/<secret>";
            description = "The key; `a/b` is b below a.";
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
      description = "The compose file's content.";
    };
    composeFile = mkOption {
      type = types.package;
      readOnly = true;
      description = "The compose file, as JSON.";
    };
  };

  config = {
    compose = compose.text name config;
    composeFile = pkgs.writeText "compose-${name}.json" (builtins.toJSON config.compose);
  };
}
