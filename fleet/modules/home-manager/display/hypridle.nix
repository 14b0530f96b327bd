# Idle and lock: after a while the screen is locked, then turned off, then the machine sleeps. It also locks before sleep.
{
  config,
  lib,
  pkgs,
  ...
}: let
  inherit (lib) mkDefault mkEnableOption mkIf mkOption types;
  inherit (config.homelab) nixos;
  inherit (config.homelab.theme) colors;
  cfg = config.homelab.hypridle;

  # `#20242c` in hyprlock's notation
  color = hex: "rgb(${lib.removePrefix "#" hex})";
  lock =
    if cfg.lockCommand == null
    then "${pkgs.procps}/bin/pidof hyprlock || ${lib.getExe pkgs.hyprlock}"
    else cfg.lockCommand;
in {
  options.homelab.hypridle = {
    enable = mkEnableOption "the idle daemon, Hypridle, and the screen lock, Hyprlock";
    lockTimeout = mkOption {
      type = types.ints.positive;
      default = 300;
      description = "Seconds without input until the screen is locked; it is turned off 30 seconds later.";
    };
    suspendTimeout = mkOption {
      type = types.nullOr types.ints.positive;
      default = null;
      example = 900;
      description = "Seconds without input until the machine sleeps; null: never.";
    };
    suspendCommand = mkOption {
      type = types.str;
      default = "systemctl suspend";
      example = "systemctl suspend-then-hibernate";
      description = "The command that puts the machine to sleep.";
    };
    lockCommand = mkOption {
      type = types.nullOr types.str;
      default = null;
      example = "/usr/bin/swaylock -f";
      description = ''
        The command that locks the screen; null: Hyprlock from this home. On systems other than NixOS the lock must be
        that system's own: one from this home cannot check a password there.
      '';
    };
  };

  config = lib.mkMerge [
    {homelab.display.wanted.hypridle = cfg.enable;}
    (mkIf (cfg.enable && config.homelab.display.enable) {
      assertions = [
        {
          assertion = cfg.suspendTimeout == null || cfg.suspendTimeout > cfg.lockTimeout;
          message = "homelab.hypridle.suspendTimeout (${toString cfg.suspendTimeout} s) must be longer than homelab.hypridle.lockTimeout (${toString cfg.lockTimeout} s): raise the first or lower the second";
        }
        {
          assertion = cfg.lockCommand != null || nixos == null || (nixos.security.pam.services.hyprlock or null) != null || (nixos.programs.hyprlock.enable or false);
          message = "homelab.hypridle locks the screen with hyprlock, which cannot check a password on this host: set security.pam.services.hyprlock = { }; in its configuration.nix, or homelab.hypridle.lockCommand";
        }
        {
          assertion = cfg.lockCommand != null || nixos != null;
          message = "homelab.hypridle: without NixOS, hyprlock from this home cannot check a password: set homelab.hypridle.lockCommand to the lock of the system, for example \"/usr/bin/swaylock -f\"";
        }
      ];

      services.hypridle = {
        enable = true;
        settings = {
          general = {
            lock_cmd = lock;
            before_sleep_cmd = "loginctl lock-session";
            after_sleep_cmd = "hyprctl dispatch dpms on";
          };
          listener =
            [
              {
                timeout = cfg.lockTimeout;
                on-timeout = "loginctl lock-session";
              }
              {
                timeout = cfg.lockTimeout + 30;
                on-timeout = "hyprctl dispatch dpms off";
                on-resume = "hyprctl dispatch dpms on";
              }
            ]
            ++ lib.optional (cfg.suspendTimeout != null) {
              timeout = cfg.suspendTimeout;
              on-timeout = cfg.suspendCommand;
            };
        };
      };

      programs.hyprlock = mkIf (cfg.lockCommand == null) {
        enable = true;
        settings = {
          general.hide_cursor = mkDefault true;
          background = [
            {
              monitor = "";
              color = color colors.background;
            }
          ];
          input-field = [
            {
              monitor = "";
              size = "320, 48";
              outline_thickness = 2;
              outer_color = color colors.primary;
              inner_color = color colors.backgroundAlt;
              font_color = color colors.foreground;
              fail_color = color colors.urgent;
              fade_on_empty = false;
            }
          ];
        };
      };
    })
  ];
}
