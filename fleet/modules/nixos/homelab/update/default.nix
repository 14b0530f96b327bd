# The scheduled update: at its time a machine deploys to itself what was published for it, as nixherd.pull does, if it is
# on mains and on a network where that costs nothing; then old generations go, and disks are trimmed.
{
  config,
  lib,
  pkgs,
  ...
}: let
  inherit (lib) mkDefault mkEnableOption mkIf mkOption types;
  cfg = config.homelab.update;
  pull = config.nixherd.pull;
  kept = "/var/lib/nixherd/update";

  onWifi = cfg.checkWifi != false && cfg.checkWifi != [];
  gates =
    ["/bin/sh" "${./gates.sh}" "/sys/class/power_supply"]
    ++ [
      (
        if cfg.checkAcPower
        then "mains"
        else "-"
      )
      (
        if onWifi
        then "unmetered"
        else "-"
      )
    ]
    ++ lib.optionals (lib.isList cfg.checkWifi) cfg.checkWifi;
  boot =
    if cfg.rebootOnKernelUpdate
    then "boot"
    else "-";
  update = pkgs.writeShellScript "nixos-upgrade" ''
    exec /bin/sh ${./update.sh} "" ${config.systemd.services.nixherd-pull.serviceConfig.ExecStart} \
      ${import ../../program.nix} ${boot} ${lib.escapeShellArgs gates}
  '';
in {
  options.homelab.update = {
    enable = mkEnableOption ''
      the scheduled update, by the unit nixos-upgrade: what nixherd.pull.from has published for this machine is deployed
      under the same lock, health checks and way back as what is pushed'';
    updateDates = mkOption {
      type = types.str;
      default = "03:00";
      example = "Sat 04:00";
      description = "When it updates itself (systemd.time(7)), spread over nixherd.pull.spread; what was missed is made up for.";
    };
    collectGarbage = mkOption {
      type = types.bool;
      default = true;
      description = "Whether old generations, and what nothing needs any more, are removed (nix.gc; nix.gc.options says how old, 30 days).";
    };
    gcDates = mkOption {
      type = types.str;
      default = "03:30";
      description = "When that is (systemd.time(7)).";
    };
    trim = mkOption {
      type = types.bool;
      default = true;
      description = "Whether disks are told which blocks are free (services.fstrim).";
    };
    trimInterval = mkOption {
      type = types.str;
      default = "weekly";
      example = "daily";
      description = "When that is (systemd.time(7)).";
    };
    rebootOnKernelUpdate = mkOption {
      type = types.bool;
      default = false;
      description = ''
        Whether it boots where the new system has another kernel than the one that runs. Not while a person is logged in,
        something inhibits it (systemd-inhibit) or a deployment is under way; and not twice for a kernel that does not come.
      '';
    };
    checkAcPower = mkOption {
      type = types.bool;
      default = false;
      description = "Whether it waits while on battery, and while nobody can say what it runs on.";
    };
    checkWifi = mkOption {
      type = types.either types.bool (types.listOf (types.strMatching "[^\n]{1,32}"));
      default = false;
      example = ["home" "office"];
      description = ''
        Whether it waits while NetworkManager says that the network is metered or a mobile one, or cannot say it; with a
        list, also in every wireless network but these. By wire it goes on. An empty list checks nothing.
      '';
    };
    wakeOnUpdate = mkOption {
      type = types.bool;
      default = false;
      description = "Whether it is woken from its sleep for it, where its clock can do that.";
    };
  };

  config = mkIf cfg.enable {
    assertions = [
      {
        assertion = pull.from != null;
        message = "homelab.update: what is to be deployed? Set nixherd.pull.from to the URL of a cache that `nixherd publish` or homelab.ci.rollingFlakeUpdate fills, and nixherd.pull.publicKey to its key.";
      }
      {
        assertion = !config.system.autoUpgrade.enable;
        message = "homelab.update and system.autoUpgrade are both on, and would undo each other's work: set system.autoUpgrade.enable = false.";
      }
      {
        assertion = !onWifi || config.networking.networkmanager.enable;
        message = "homelab.update.checkWifi asks NetworkManager: set networking.networkmanager.enable = true, or homelab.update.checkWifi = false.";
      }
      {
        assertion = !(cfg.rebootOnKernelUpdate && config.boot.isContainer);
        message = "homelab.update.rebootOnKernelUpdate: a container (boot.isContainer) has no kernel of its own; set it to false.";
      }
    ];

    nixherd.pull.dates = mkDefault null; # this timer instead of that one
    systemd.services.nixos-upgrade = mkIf (pull.from != null) {
      description = "Update of this machine";
      after =
        ["network-online.target"]
        # what wakes it is under way then; nothing of it is to be started by this
        ++ map (how: "systemd-${how}.service") ["suspend" "hibernate" "hybrid-sleep" "suspend-then-hibernate"];
      wants = ["network-online.target"];
      path = config.systemd.services.nixherd-pull.path ++ lib.optional onWifi pkgs.networkmanager;
      # it is at work while the system that has another one of it is activated
      restartIfChanged = false;
      stopIfChanged = false;
      unitConfig.X-StopOnRemoval = false;
      serviceConfig = {
        Type = "exec"; # nobody waits for one that waits
        ExecStart = toString update;
        SuccessExitStatus = 75; # updated, and the boot waits
      };
    };
    systemd.timers.nixos-upgrade = mkIf (pull.from != null) {
      description = "When this machine updates itself";
      wantedBy = ["timers.target"];
      timerConfig = {
        OnCalendar = cfg.updateDates;
        RandomizedDelaySec = pull.spread;
        FixedRandomDelay = true;
        Persistent = true;
        WakeSystem = cfg.wakeOnUpdate;
      };
    };
    # one that waited when the machine was shut down goes on after the boot
    systemd.timers.nixos-upgrade-waits = mkIf (pull.from != null) {
      description = "An update that waited before the boot";
      wantedBy = ["timers.target"];
      unitConfig.ConditionPathExists = "${kept}/waits";
      timerConfig = {
        OnBootSec = "5min";
        Unit = "nixos-upgrade.service";
      };
    };

    nix.gc = mkIf cfg.collectGarbage {
      automatic = mkDefault true;
      dates = mkDefault cfg.gcDates;
      options = mkDefault "--delete-older-than 30d";
    };
    services.fstrim = mkIf cfg.trim {
      enable = mkDefault true;
      interval = mkDefault cfg.trimInterval;
    };
  };
}
