# For NixOS: secrets below /run/secrets, decrypted with the host's key at activation, or by a unit.
{
  config,
  lib,
  pkgs,
  ...
}: let
  cfg = config.sops;
  inherit (lib) mkOption types;
  inherit (import ./manifest.nix {inherit lib pkgs cfg;}) install manifest generateKey;
  ofUsers = lib.filterAttrs (_: secret: secret.neededForUsers) cfg.secrets;
  regular = lib.filterAttrs (_: secret: !secret.neededForUsers) cfg.secrets;
  common = {
    inherit (cfg) useTmpfs;
    userMode = false;
  };
  ofSystem = manifest "" regular cfg.templates (common
    // {
      secretsMountPoint = "/run/secrets.d";
      symlinkPath = "/run/secrets";
    });
  beforeUsers = manifest "-for-users" ofUsers {} (common
    // {
      secretsMountPoint = "/run/secrets-for-users.d";
      symlinkPath = "/run/secrets-for-users";
    });
  # A host decrypts with its own keys, but for those that are secrets themselves.
  keys = type: map (k: k.path) (lib.filter (k: k.type == type && !lib.hasPrefix "/run/secrets" k.path) config.services.openssh.hostKeys);
  # sops must not find a key of its own in root's home.
  environment = {HOME = "/var/empty";} // cfg.environment;
  withEnvironment = command: ''
    (
      ${lib.concatStringsSep "\n" (lib.mapAttrsToList (name: value: "export ${name}='${toString value}'") environment)}
      ${command}
    )
  '';
  both = other: text: (other == null) || text == null || text == 0;
in {
  _known = [(lib.knownOptions "sops-nix")];
  options.sops =
    import ./options.nix {
      inherit lib pkgs config;
      symlinkPath = "/run/secrets";
      users = config.users.users;
    }
    // {
      useTmpfs = mkOption {
        type = types.bool;
        default = false;
      };
      useSystemdActivation = mkOption {
        type = types.bool;
        default = false;
      };
    };
  config = lib.mkMerge [
    {
      sops.age.sshKeyPaths = lib.mkDefault (lib.optionals config.services.openssh.enable (keys "ed25519"));
      sops.gnupg.sshKeyPaths = lib.mkDefault (lib.optionals config.services.openssh.enable (keys "rsa"));
    }
    (lib.mkIf (cfg.templates != {}) {
      sops.placeholder = lib.mapAttrs (name: _: lib.mkDefault "<SOPS:${builtins.hashString "sha256" name}:PLACEHOLDER>") cfg.secrets;
    })
    (lib.mkIf (cfg.secrets != {}) {
      assertions =
        [
          {
            assertion = cfg.gnupg.home != null || cfg.gnupg.sshKeyPaths != [] || cfg.age.keyFile != null || cfg.age.sshKeyPaths != [];
            message = "No key source configured for sops. Either set services.openssh.enable or set sops.age.keyFile or sops.gnupg.home";
          }
          {
            assertion = lib.all (s: s.owner == null || s.owner == "root") (lib.attrValues ofUsers);
            message = "neededForUsers cannot be used for secrets that are not root-owned";
          }
        ]
        ++ lib.concatMap (secret: [
          {
            assertion = both secret.owner secret.uid;
            message = "In ${secret.name} exactly one of sops.owner and sops.uid must be set";
          }
          {
            assertion = both secret.group secret.gid;
            message = "In ${secret.name} exactly one of sops.group and sops.gid must be set";
          }
        ]) (lib.attrValues cfg.secrets);
      system.activationScripts = lib.mkMerge [
        (lib.mkIf cfg.age.generateKey {
          generate-age-key.text = generateKey cfg.age.keyFile;
        })
        (lib.mkIf (regular != {} && !cfg.useSystemdActivation) {
          setupSecrets = {
            deps = ["specialfs" "users" "groups"] ++ lib.optional cfg.age.generateKey "generate-age-key";
            supportsDryActivation = true;
            text = ''
              [ -e /run/current-system ] || echo setting up secrets...
              ${withEnvironment "${install} ${ofSystem}"}
            '';
          };
        })
        (lib.mkIf (ofUsers != {}) {
          setupSecretsForUsers = {
            deps = ["specialfs"] ++ lib.optional cfg.age.generateKey "generate-age-key";
            supportsDryActivation = true;
            text = ''
              [ -e /run/current-system ] || echo setting up secrets for users...
              ${withEnvironment "${install} -ignore-passwd ${beforeUsers}"}
            '';
          };
          users.deps = ["setupSecretsForUsers"];
        })
      ];
      systemd.services.sops-install-secrets = lib.mkIf (regular != {} && cfg.useSystemdActivation) {
        wantedBy = ["sysinit.target"];
        after = ["local-fs.target"];
        environment = environment // {SOPS_RESTART_UNITS_VIA_SYSTEMCTL = "1";};
        unitConfig.DefaultDependencies = "no";
        serviceConfig = {
          Type = "oneshot";
          ExecStart = "${install} ${ofSystem}";
          RemainAfterExit = true;
        };
      };
    })
  ];
}
