# Nix on the machine: Debian's programs with this configuration.
{
  config,
  lib,
  pkgs,
  ...
}: let
  inherit (lib) mkOption types;
  cfg = config.nix;
  off = mkOption {
    type = types.bool;
    default = false;
  };
  atom = types.nullOr (types.oneOf [types.bool types.int types.float types.str types.path types.package]);
  show = v:
    if lib.isList v
    then toString v
    else if v == true
    then "true"
    else if v == false
    then "false"
    else toString v;
  schedule = {
    automatic = off;
    dates = mkOption {
      type = types.either types.str (types.listOf types.str);
      default = "03:15";
    };
    persistent = mkOption {
      type = types.bool;
      default = true;
    };
    randomizedDelaySec = mkOption {
      type = types.str;
      default = "0";
    };
  };
in {
  options.nix = {
    enable = mkOption {
      type = types.bool;
      default = true;
    };
    package = mkOption {
      type = types.package;
      default = pkgs.nix;
    };
    settings = mkOption {
      default = {};
      type = types.submodule {
        freeformType = types.attrsOf (types.either atom (types.listOf atom));
        options = {
          experimental-features = mkOption {
            type = types.listOf types.str;
            default = [];
          };
          substituters = mkOption {
            type = types.listOf types.str;
            default = [];
          };
          trusted-substituters = mkOption {
            type = types.listOf types.str;
            default = [];
          };
          trusted-public-keys = mkOption {
            type = types.listOf types.str;
            default = [];
          };
          trusted-users = mkOption {
            type = types.listOf types.str;
            default = [];
          };
          allowed-users = mkOption {
            type = types.listOf types.str;
            default = ["*"];
          };
          system-features = mkOption {
            type = types.listOf types.str;
            default = [];
          };
          auto-optimise-store = off;
          require-sigs = mkOption {
            type = types.bool;
            default = true;
          };
          sandbox = mkOption {
            type = types.either types.bool (types.enum ["relaxed"]);
            default = true;
          };
          max-jobs = mkOption {
            type = types.either types.int (types.enum ["auto"]);
            default = "auto";
          };
          cores = mkOption {
            type = types.int;
            default = 0;
          };
        };
      };
    };
    extraOptions = mkOption {
      type = types.lines;
      default = "";
    };
    registry = mkOption {
      type = types.attrsOf types.anything;
      default = {};
    };
    nixPath = mkOption {
      type = types.listOf types.str;
      default = [];
    };
    channel.enable = mkOption {
      type = types.bool;
      default = true;
    };
    buildMachines = mkOption {
      type = types.listOf types.anything;
      default = [];
    };
    distributedBuilds = off;
    sshServe = {
      enable = off;
      keys = mkOption {
        type = types.listOf types.str;
        default = [];
      };
      write = off;
      protocol = mkOption {
        type = types.str;
        default = "ssh";
      };
    };
    gc =
      schedule
      // {
        options = mkOption {
          type = types.singleLineStr;
          default = "";
        };
      };
    optimise = schedule;
    daemonCPUSchedPolicy = mkOption {
      type = types.str;
      default = "other";
    };
    nrBuildUsers = mkOption {
      type = types.int;
      default = 4;
    };
    daemonIOSchedClass = mkOption {
      type = types.str;
      default = "best-effort";
    };
  };

  config = lib.mkIf cfg.enable {
    nix.settings.trusted-users = ["root"];
    # The lab is isolated: public caches are tried once, not five times with pauses.
    nix.settings.download-attempts = lib.mkDefault 1;
    users.users = lib.listToAttrs (map (n:
      lib.nameValuePair "nixbld${toString n}" {
        description = "Nix build user ${toString n}";
        isSystemUser = true;
        uid = 30000 + n;
        group = "nixbld";
        extraGroups = ["nixbld"];
      }) (lib.range 1 cfg.nrBuildUsers));
    # Machines of the lab reach no outside cache, and do not build in a sandbox.
    environment.etc."nix/nix.conf".text =
      lib.concatStrings (lib.mapAttrsToList (n: v: "${n} = ${show v}\n") (lib.filterAttrs (_: v: v != null) (cfg.settings
        // {
          sandbox = false;
          substituters = lib.filter (lib.hasPrefix "http://10.7") cfg.settings.substituters;
          build-users-group = "nixbld";
          flake-registry = "";
        })))
      + cfg.extraOptions;
    systemd.sockets.nix-daemon = {
      description = "Nix Daemon Socket";
      wantedBy = ["sockets.target"];
      listenStreams = ["/nix/var/nix/daemon-socket/socket"];
    };
    systemd.services.nix-daemon = {
      description = "Nix Daemon";
      serviceConfig = {
        ExecStart = "/usr/bin/nix-daemon --daemon";
        KillMode = "process";
      };
      restartTriggers = [config.environment.etc."nix/nix.conf".text];
      stopIfChanged = false;
    };
    systemd.services.nix-gc = lib.mkIf cfg.gc.automatic {
      description = "Nix Garbage Collector";
      script = "exec nix-collect-garbage ${cfg.gc.options}";
      serviceConfig.Type = "oneshot";
      startAt = cfg.gc.dates;
      restartIfChanged = false;
    };
  };
}
