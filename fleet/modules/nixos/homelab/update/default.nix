# The scheduled update: a machine deploys to itself what was published for it, like nixherd.pull, if it is on mains power
# and on an unmetered network; then old generations are removed and disks trimmed.
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
      the scheduled update, by the unit nixos-upgrade: it deploys what nixherd.pull.from has published for this machine,
      with the same lock, health checks and rollback as a pushed deployment'';
    updateDates = mkOption {
      type = types.str;
      default = "03:00";
      example = "Sat 04:00";
      description = "When it updates itself (systemd.time(7)), spread over nixherd.pull.spread; a missed run is made up for.";
    };
    collectGarbage = mkOption {
      type = types.bool;
      default = true;
      description = "Whether old generations and unused paths are removed (nix.gc; the age is in nix.gc.options, 30 days).";
    };
    gcDates = mkOption {
      type = types.str;
      default = "03:30";
      description = "When (systemd.time(7)).";
    };
    trim = mkOption {
      type = types.bool;
      default = true;
      description = "Whether free blocks are trimmed (services.fstrim).";
    };
    trimInterval = mkOption {
      type = types.str;
      default = "weekly";
      example = "daily";
      description = "When (systemd.time(7)).";
    };
    rebootOnKernelUpdate = mkOption {
      type = types.bool;
      default = false;
      description = ''
        Whether it reboots when the new system has a different kernel than the running one. Not while a user is logged in, an
        inhibitor (systemd-inhibit) or a deployment is active, and not twice for a kernel that does not start.
      '';
    };
    checkAcPower = mkOption {
      type = types.bool;
      default = false;
      description = "Whether it waits while on battery, or while the power source is unknown.";
    };
    checkWifi = mkOption {
      type = types.either types.bool (types.listOf (types.strMatching "[^\n]{1,32}"));
      default = false;
      example = ["home" "office"];
      description = ''
        Whether it waits while NetworkManager reports a metered or mobile network, or cannot tell; with a list, also in
        every wireless network that is not listed. A cable is always accepted. An empty list checks nothing.
      '';
    };
    wakeOnUpdate = mkOption {
      type = types.bool;
      default = false;
      description = "Whether the machine wakes from sleep for it, if its clock supports that.";
    };
  };

  config = mkIf cfg.enable {
    assertions = [
      {
        assertion = pull.from != null;
        message = "homelab.update: the source of updates is missing: set nixherd.pull.from to the URL of a cache that `nixherd publish` or homelab.ci.rollingFlakeUpdate fills, and nixherd.pull.publicKey to its key.";
      }
      {
        assertion = !config.system.autoUpgrade.enable;
        message = "homelab.update and system.autoUpgrade are both enabled and would undo each other's updates: set system.autoUpgrade.enable = false.";
      }
      {
        assertion = !onWifi || config.networking.networkmanager.enable;
        message = "homelab.update.checkWifi needs NetworkManager: set networking.networkmanager.enable = true, or homelab.update.checkWifi = false.";
      }
      {
        assertion = !(cfg.rebootOnKernelUpdate && config.boot.isContainer);
        message = "homelab.update.rebootOnKernelUpdate: a container (boot.isContainer) has no own kernel to reboot for; set it to false.";
      }
    ];

    nixherd.pull.dates = mkDefault null; # this timer replaces that one
    systemd.services.nixos-upgrade = mkIf (pull.from != null) {
      description = "Update of this machine";
      after =
        ["network-online.target"]
        # when the timer wakes the machine, the resume is still in progress; this must not start it
        ++ map (how: "systemd-${how}.service") ["suspend" "hibernate" "hybrid-sleep" "suspend-then-hibernate"];
      wants = ["network-online.target"];
      path = config.systemd.services.nixherd-pull.path ++ lib.optional onWifi pkgs.networkmanager;
      # it is running while the system that contains its next version is activated
      restartIfChanged = false;
      stopIfChanged = false;
      unitConfig.X-StopOnRemoval = false;
      serviceConfig = {
        Type = "exec"; # units that depend on it do not wait
        ExecStart = toString update;
        SuccessExitStatus = 75; # updated, the reboot is pending
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
    # an update that was waiting at a shutdown continues after the boot
    systemd.timers.nixos-upgrade-waits = mkIf (pull.from != null) {
      description = "Resume an update that was waiting before the boot";
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
