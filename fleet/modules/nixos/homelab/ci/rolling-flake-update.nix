# The rolling update: one machine updates the fleet's inputs, builds everything, fills the cache and pushes the update;
# machines with homelab.update (or nixherd.pull) follow through the cache.
{
  config,
  lib,
  pkgs,
  ...
}: let
  inherit (lib) mkEnableOption mkIf mkOption types;
  cfg = config.homelab.ci.rollingFlakeUpdate;
  name = "rolling-flake-update"; # of the unit, and of the builder
  file = types.strMatching "/.*"; # not a Nix path, which would be copied into the store
in {
  options.homelab.ci.rollingFlakeUpdate = {
    enable = mkEnableOption ''
      the rolling update of the fleet, by the unit ${name}: it updates the inputs, builds all machines and homes, puts them
      into the cache, and pushes the update. If a build fails, nothing is pushed'';
    onCalendar = mkOption {
      type = types.str;
      default = "22:15";
      description = "When it runs (systemd.time(7)); it should end before the machines look for updates.";
    };
    repoDir = mkOption {
      type = file;
      example = "/home/alice/fleet";
      description = ''
        A clone of the fleet on this machine. Only the URL of its origin is read, and nothing is changed: the work is done
        in the unit's own clone. An SSH URL is converted to HTTPS.
      '';
    };
    branch = mkOption {
      type = types.nullOr (types.strMatching "[A-Za-z0-9][A-Za-z0-9._/-]*");
      default = null;
      description = "The branch to follow and to push to; null: the origin's default branch.";
    };
    tokenFile = mkOption {
      type = types.nullOr file;
      default = null;
      example = "/run/secrets/forge-token";
      description = ''
        A file, readable by root only, with a token that may read and write the origin's contents (HTTPS). Only git's
        transport gets it. Null: no token is needed (the origin is a path on this machine).
      '';
    };
    signingKeyFile = mkOption {
      type = types.nullOr file;
      default = config.homelab.cache.nixServeSecretKeyFile or null;
      defaultText = lib.literalExpression "config.homelab.cache.nixServeSecretKeyFile";
      example = "/run/secrets/cache-key";
      description = ''
        The cache's secret key from `nix key generate-secret --key-name NAME`; machines have its public half in
        nixherd.pull.publicKey. Whoever has this key decides what they run.
      '';
    };
    cacheDir = mkOption {
      type = types.str;
      readOnly = true;
      default = "/var/lib/${name}/cache";
      description = "The binary cache, for a web server: machines have its URL in nixherd.pull.from.";
    };
  };

  config = mkIf cfg.enable {
    assertions = [
      {
        assertion = cfg.signingKeyFile != null;
        message = "homelab.ci.rollingFlakeUpdate: systems must be signed. Set signingKeyFile to a file outside the store, made by `nix key generate-secret --key-name NAME`.";
      }
      {
        assertion = lib.all (path: path == null || !lib.hasPrefix "${builtins.storeDir}/" path) [cfg.signingKeyFile cfg.tokenFile];
        message = "homelab.ci.rollingFlakeUpdate: signingKeyFile and tokenFile are secrets, and every user can read the store. Name a file outside it, for example in /run/secrets.";
      }
    ];

    users.users.${name} = {
      description = "Evaluates and builds the fleet";
      isSystemUser = true;
      group = name;
    };
    users.groups.${name} = {};
    systemd.services.${name} = {
      description = "Update the fleet's inputs, build all of it, publish and push";
      after = ["network-online.target"];
      wants = ["network-online.target"];
      path = [config.nix.package pkgs.git pkgs.openssh pkgs.util-linux pkgs.findutils pkgs.gnused pkgs.gnugrep pkgs.coreutils];
      environment.NIX_REMOTE = "daemon";
      # the update of its own machine must not stop it
      restartIfChanged = false;
      stopIfChanged = false;
      unitConfig.X-StopOnRemoval = false;
      serviceConfig = {
        Type = "oneshot";
        ExecStart = toString (pkgs.writeShellScript name ''
          exec /bin/sh ${./rolling-flake-update.sh} ${name} "$STATE_DIRECTORY" ${
            if cfg.branch == null
            then "-"
            else cfg.branch
          }
        '');
        TimeoutStartSec = "12h";
        # readable by root, not by the builder
        LoadCredential =
          ["clone:${cfg.repoDir}/.git/config" "key:${toString cfg.signingKeyFile}"]
          ++ lib.optional (cfg.tokenFile != null) "token:${cfg.tokenFile}";
        StateDirectory = name;
        RuntimeDirectory = name;
        RuntimeDirectoryMode = "0700";
        # it needs root to become the builder, and to read the builder's results
        CapabilityBoundingSet = ["CAP_SETUID" "CAP_SETGID" "CAP_CHOWN" "CAP_FOWNER" "CAP_DAC_OVERRIDE"];
        NoNewPrivileges = true;
        ProtectSystem = "strict";
        ProtectHome = true;
        PrivateTmp = true;
        PrivateDevices = true;
        ProtectKernelTunables = true;
        ProtectControlGroups = true;
        Nice = 10;
        IOSchedulingClass = "idle";
      };
    };
    systemd.timers.${name} = {
      description = "Timer of the fleet's rolling update";
      wantedBy = ["timers.target"];
      timerConfig = {
        OnCalendar = cfg.onCalendar;
        Persistent = true;
      };
    };
  };
}
