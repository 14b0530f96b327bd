# The options that NixOS and Home Manager share. `secretsDir` is where a secret's link appears.
{
  lib,
  config,
  secretsDir,
}: let
  inherit (lib) mkOption types;
  format = types.enum ["yaml" "json" "binary" "dotenv" "ini"];
  cfg = config.sops;
in {
  defaultSopsFile = mkOption {type = types.path;};
  defaultSopsFormat = mkOption {
    type = types.str;
    default = "yaml";
  };
  validateSopsFiles = mkOption {
    type = types.bool;
    default = true;
  };
  age = {
    keyFile = mkOption {
      type = types.nullOr types.str;
      default = null;
    };
    generateKey = mkOption {
      type = types.bool;
      default = false;
    };
    sshKeyPaths = mkOption {
      type = types.listOf types.path;
      default = [];
    };
  };
  gnupg = {
    home = mkOption {
      type = types.nullOr types.str;
      default = null;
    };
    sshKeyPaths = mkOption {
      type = types.listOf types.path;
      default = [];
    };
  };
  environment = mkOption {
    type = types.attrsOf types.anything;
    default = {};
  };
  templates = mkOption {
    type = types.attrsOf types.anything;
    default = {};
  };
  placeholder = mkOption {
    type = types.attrsOf types.str;
    default = lib.mapAttrs (name: _: "<SOPS:${builtins.hashString "sha256" name}:PLACEHOLDER>") cfg.secrets;
  };
  secrets = mkOption {
    default = {};
    type = types.attrsOf (types.submodule ({
      name,
      config,
      ...
    }: {
      options = {
        name = mkOption {
          type = types.str;
          default = name;
        };
        key = mkOption {
          type = types.str;
          default =
            if config.format == "binary"
            then ""
            else name;
        };
        path = mkOption {
          type = types.str;
          default =
            if config.neededForUsers
            then "/run/secrets-for-users/${config.name}"
            else "${secretsDir}/${config.name}";
        };
        format = mkOption {
          type = format;
          default = cfg.defaultSopsFormat;
        };
        mode = mkOption {
          type = types.str;
          default = "0400";
        };
        owner = mkOption {
          type = types.nullOr types.str;
          default = "root";
        };
        group = mkOption {
          type = types.nullOr types.str;
          default = "root";
        };
        uid = mkOption {
          type = types.nullOr types.int;
          default = null;
        };
        gid = mkOption {
          type = types.nullOr types.int;
          default = null;
        };
        sopsFile = mkOption {
          type = types.path;
          default = cfg.defaultSopsFile;
        };
        sopsFileHash = mkOption {
          type = types.str;
          default = builtins.hashFile "sha256" config.sopsFile;
          internal = true;
        };
        neededForUsers = mkOption {
          type = types.bool;
          default = false;
        };
        restartUnits = mkOption {
          type = types.listOf types.str;
          default = [];
        };
        reloadUnits = mkOption {
          type = types.listOf types.str;
          default = [];
        };
      };
    }));
  };
}
