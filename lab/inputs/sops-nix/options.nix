# The options that NixOS and Home Manager share. `symlinkPath` is where the link to a secret appears, `users` are the
# machine's, null in a home, where files belong to the user; `moreFor` are further options of each secret.
{
  lib,
  pkgs,
  config,
  symlinkPath,
  users ? null,
}: let
  inherit (lib) mkOption types;
  cfg = config.sops;
  option = type: default: mkOption {inherit type default;};
  owned = config:
    lib.optionalAttrs (users != null) {
      owner = option (types.nullOr types.str) null;
      uid = option (types.nullOr types.int) 0;
      group = option (types.nullOr types.str) (
        if config.owner != null
        then users.${config.owner}.group
        else null
      );
      gid = option (types.nullOr types.int) 0;
      restartUnits = option (types.listOf types.str) [];
      reloadUnits = option (types.listOf types.str) [];
    };
  secret = types.submodule ({
    name,
    config,
    ...
  }: {
    options =
      {
        name = option types.str name;
        key = option types.str (
          if cfg.defaultSopsKey != null
          then cfg.defaultSopsKey
          else name
        );
        path = option types.str (
          if config.neededForUsers or false
          then "/run/secrets-for-users/${config.name}"
          else "${symlinkPath}/${config.name}"
        );
        format = option (types.enum ["yaml" "json" "binary" "dotenv" "ini"]) cfg.defaultSopsFormat;
        mode = option types.str "0400";
        sopsFile = option types.path cfg.defaultSopsFile;
      }
      // owned config
      // lib.optionalAttrs (users != null) {
        sopsFileHash = mkOption {
          type = types.str;
          default = lib.optionalString cfg.validateSopsFiles (builtins.hashFile "sha256" config.sopsFile);
        };
        neededForUsers = option types.bool false;
      };
  });
  template = types.submodule ({
    name,
    config,
    ...
  }: {
    options =
      {
        name = option types.singleLineStr name;
        path = option types.singleLineStr "${symlinkPath}/rendered/${config.name}";
        content = option types.lines "";
        mode = option types.singleLineStr "0400";
        file = option types.path (pkgs.writeText config.name config.content);
      }
      // owned config;
  });
in {
  defaultSopsFile = mkOption {type = types.path;};
  defaultSopsFormat = option types.str "yaml";
  defaultSopsKey = option (types.nullOr types.str) null;
  validateSopsFiles = option types.bool true;
  keepGenerations = option types.ints.unsigned 1;
  log = option (types.listOf (types.enum ["keyImport" "secretChanges"])) ["keyImport" "secretChanges"];
  age = {
    keyFile = option (types.nullOr types.str) null;
    generateKey = option types.bool false;
    sshKeyPaths = option (types.listOf types.path) [];
  };
  gnupg = {
    home = option (types.nullOr types.str) null;
    sshKeyPaths = option (types.listOf types.path) [];
  };
  environment = option (types.attrsOf types.anything) {};
  secrets = option (types.attrsOf secret) {};
  templates = option (types.attrsOf template) {};
  placeholder = option (types.attrsOf types.str) {};
}
