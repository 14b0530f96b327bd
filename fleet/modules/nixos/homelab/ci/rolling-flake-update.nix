# The rolling update: one machine updates the fleet's inputs, builds all of it, fills the cache and pushes the update;
# machines with homelab.update (or nixherd.pull) follow through the cache.
{
  config,
  lib,
  pkgs,
  ...
}: let
  inherit (lib) mkEnableOption mkIf mkOption types;
  cfg = config.homelab.ci.rollingFlakeUpdate;
  name = "rolling-flake-update"; # the unit's, and the builder's
  file = types.strMatching "/.*"; # no path of Nix', which would be copied into the store
in {
  options.homelab.ci.rollingFlakeUpdate = {
    enable = mkEnableOption ''
      the rolling update of the fleet, by the unit ${name}: its inputs are updated, all machines and homes are built and put
      into the cache, and the update is pushed. What does not build stops there'';
    onCalendar = mkOption {
      type = types.str;
      default = "22:15";
      description = "When (systemd.time(7)): early enough that it has ended when machines look for what is new.";
    };
    repoDir = mkOption {
      type = file;
      example = "/home/alice/fleet";
      description = ''
        A clone of the fleet on this machine. Nothing in it is read but the URL of its origin, and nothing is changed: the
        work is done in a clone of the unit's own. One for SSH is taken as the one for HTTPS.
      '';
    };
    branch = mkOption {
      type = types.nullOr (types.strMatching "[A-Za-z0-9][A-Za-z0-9._/-]*");
      default = null;
      description = "The branch to follow and to push to; null: the one that the origin calls its own.";
    };
    tokenFile = mkOption {
      type = types.nullOr file;
      default = null;
      example = "/run/secrets/forge-token";
      description = ''
        A file, read by root alone, with a token that may read and write the origin's contents (HTTPS). It gets to git's
        transport and nowhere else. Null: whoever reads the origin may write it, too (a path on this machine).
      '';
    };
    signingKeyFile = mkOption {
      type = types.nullOr file;
      default = config.homelab.cache.nixServeSecretKeyFile or null;
      defaultText = lib.literalExpression "config.homelab.cache.nixServeSecretKeyFile";
      example = "/run/secrets/cache-key";
      description = ''
        The cache's secret key, as `nix key generate-secret --key-name NAME` prints it; its public half is what machines
        have as nixherd.pull.publicKey. Whoever has it says what they run.
      '';
    };
    cacheDir = mkOption {
      type = types.str;
      readOnly = true;
      default = "/var/lib/${name}/cache";
      description = "The binary cache, for a web server: its URL is what machines have as nixherd.pull.from.";
    };
  };

  config = mkIf cfg.enable {
    assertions = [
      {
        assertion = cfg.signingKeyFile != null;
        message = "homelab.ci.rollingFlakeUpdate: nothing that is not signed is deployed. Set signingKeyFile to a file that `nix key generate-secret --key-name NAME` made, outside the store.";
      }
      {
        assertion = lib.all (path: path == null || !lib.hasPrefix "${builtins.storeDir}/" path) [cfg.signingKeyFile cfg.tokenFile];
        message = "homelab.ci.rollingFlakeUpdate: signingKeyFile and tokenFile are secrets, and everybody can read the store. Name a file outside it, such as sops makes in /run/secrets.";
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
      # what it has begun is not ended by its own machine's update
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
        # root reads these, the builder does not
        LoadCredential =
          ["clone:${cfg.repoDir}/.git/config" "key:${toString cfg.signingKeyFile}"]
          ++ lib.optional (cfg.tokenFile != null) "token:${cfg.tokenFile}";
        StateDirectory = name;
        RuntimeDirectory = name;
        RuntimeDirectoryMode = "0700";
        # it needs to be root to become the builder, and to read what that one built
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
      description = "When the fleet's inputs are updated";
      wantedBy = ["timers.target"];
      timerConfig = {
        OnCalendar = cfg.onCalendar;
        Persistent = true;
      };
    };
  };
}
