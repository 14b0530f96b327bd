# The SSH server as the fleet has it; the keys of all its hosts; the identity of the user; and no sleep while somebody is
# logged in from elsewhere.
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
    enable = mkEnableOption "the SSH server, and the host keys of the whole fleet as known";
    secure = mkOption {
      type = types.bool;
      default = true;
      description = ''
        Keys alone let in, root too. Off, users also may give a password; root never may.
      '';
    };
    identitySecretName = mkOption {
      type = types.nullOr types.str;
      default = fleet.host.sshKeyName or null;
      defaultText = lib.literalMD "the host's `sshKeyName` in hosts.nix, otherwise null";
      example = "ssh_key_alice";
      description = ''
        The file of homelab.fleet.secrets (format binary) that holds the user's private SSH key. The machine decrypts it
        with its host key, and it becomes ~/.ssh/id_ed25519 unless there is one already; the secrets of the user's home
        open with it. Null: the machine is given nobody's key.
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
        description = "Look at who is logged in when that changes";
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
          message = "homelab.ssh.identitySecretName: the key is decrypted by sops-nix; import sops-nix' nixosModules.sops, or set it to null.";
        }
        {
          assertion = fleet.secrets != null && user != null;
          message = "homelab.ssh.identitySecretName = \"${cfg.identitySecretName}\": say where it is and whose, in homelab.fleet.secrets and homelab.fleet.host (hosts.nix), or set it to null.";
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
      # L makes a link only where nothing is: a key that a person put there is never lost.
      systemd.tmpfiles.rules = let
        directory = "${fleet.host.homeDirectory}/.ssh";
      in [
        "d ${directory} 0700 ${user} ${config.users.users.${user}.group} -"
        "L ${directory}/id_ed25519 - - - - ${identity.path}"
      ];
    }))
  ]);
}
