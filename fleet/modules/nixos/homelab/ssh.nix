# The fleet's SSH server settings; the keys of all its hosts; the user's identity; and no sleep while somebody is logged
# in remotely.
{
  config,
  lib,
  options,
  pkgs,
  ...
}: let
  inherit (lib) mkDefault mkEnableOption mkIf mkMerge mkOption types;
  inherit (config.homelab) fleet;
  cfg = config.homelab.ssh;

  # A host that is not installed yet has no key, or a placeholder.
  isKey = key: key != null && builtins.match "[a-z][a-z0-9@.-]* [A-Za-z0-9+/]+=*( .*)?" key != null;
  known = lib.filterAttrs (_: host: isKey (host.publicKey or null)) fleet.hosts;

  user = fleet.host.user or null;
  identity = config.sops.secrets.${cfg.identitySecretName};
in {
  options.homelab.ssh = {
    enable = mkEnableOption "the SSH server, with the host keys of the whole fleet as known hosts";
    secure = mkOption {
      type = types.bool;
      default = true;
      description = ''
        Whether logins require a key, also for root. If disabled, users may log in with a password; root never may.
      '';
    };
    identitySecretName = mkOption {
      type = types.nullOr types.str;
      default = fleet.host.sshKeyName or null;
      defaultText = lib.literalMD "the host's `sshKeyName` in hosts.nix, otherwise null";
      example = "ssh_key_alice";
      description = ''
        The file in homelab.fleet.secrets (format binary) with the user's private SSH key. The machine decrypts it with its
        host key; it becomes ~/.ssh/id_ed25519 unless that exists already. The secrets of the user's home are decrypted with
        it. Null: the machine gets no user key.
      '';
    };
    inhibitSleep = mkOption {
      type = types.bool;
      default = true;
      description = "Do not sleep while somebody is logged in over SSH.";
    };
  };

  config = mkIf cfg.enable (mkMerge [
    {
      services.openssh = {
        enable = mkDefault true;
        settings = {
          PasswordAuthentication = mkDefault (!cfg.secure);
          KbdInteractiveAuthentication = mkDefault (!cfg.secure);
          PermitRootLogin = mkDefault "prohibit-password";
        };
      };
      programs.ssh.knownHosts =
        lib.mapAttrs' (id: host: {
          name = "homelab-${id}";
          value = {
            hostNames = lib.unique [host.hostname (host.sshAlias or host.hostname)];
            inherit (host) publicKey;
          };
        })
        known;
    }

    (mkIf cfg.inhibitSleep {
      # logind writes a file here for each session
      systemd.paths.homelab-remote-sessions = {
        description = "Check for remote logins when sessions change";
        wantedBy = ["multi-user.target"];
        pathConfig.PathChanged = "/run/systemd/sessions";
      };
      systemd.services.homelab-remote-sessions = {
        description = "No sleep while somebody is logged in over SSH";
        path = [pkgs.coreutils pkgs.systemd];
        unitConfig.StartLimitIntervalSec = 0;
        serviceConfig = {
          Type = "exec";
          ExecStart = "/bin/sh ${./remote-sessions.sh}";
        };
      };
    })

    (mkIf (cfg.identitySecretName != null) {
      assertions = [
        {
          assertion = options ? sops;
          message = "homelab.ssh.identitySecretName: sops-nix decrypts the key; import sops-nix' nixosModules.sops, or set it to null.";
        }
        {
          assertion = fleet.secrets != null && user != null;
          message = "homelab.ssh.identitySecretName = \"${cfg.identitySecretName}\": set homelab.fleet.secrets (its directory) and homelab.fleet.host (its owner, from hosts.nix), or set it to null.";
        }
      ];
    })
    (lib.optionalAttrs (options ? sops) (mkIf (cfg.identitySecretName != null && fleet.secrets != null && user != null) {
      sops.secrets.${cfg.identitySecretName} = {
        sopsFile = fleet.secrets + "/${cfg.identitySecretName}";
        format = "binary";
        owner = user;
        mode = mkDefault "0400";
      };
      # L creates a link only if nothing exists there: a key that the user installed is never lost.
      systemd.tmpfiles.rules = let
        directory = "${fleet.host.homeDirectory}/.ssh";
      in [
        "d ${directory} 0700 ${user} ${config.users.users.${user}.group} -"
        "L ${directory}/id_ed25519 - - - - ${identity.path}"
      ];
    }))
  ]);
}
