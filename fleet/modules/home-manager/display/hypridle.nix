# Idle and lock: after a while the screen is locked, then dark, then the machine sleeps. It locks before it sleeps, too.
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

  # `#20242c` as hyprlock writes a colour
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
      description = "Seconds without input until the screen is locked; 30 later it is dark.";
    };
    suspendTimeout = mkOption {
      type = types.nullOr types.ints.positive;
      default = null;
      example = 900;
      description = "Seconds without input until the machine sleeps; null is never.";
    };
    suspendCommand = mkOption {
      type = types.str;
      default = "systemctl suspend";
      example = "systemctl suspend-then-hibernate";
      description = "What puts the machine to sleep.";
    };
    lockCommand = mkOption {
      type = types.nullOr types.str;
      default = null;
      example = "/usr/bin/swaylock -f";
      description = ''
        What locks the screen; null is Hyprlock from this home. Where another system than NixOS is below, the lock has to
        be that system's own: one from here cannot check a password there.
      '';
    };
  };

  config = lib.mkMerge [
    {homelab.display.wanted.hypridle = cfg.enable;}
    (mkIf (cfg.enable && config.homelab.display.enable) {
      assertions = [
        {
          assertion = cfg.suspendTimeout == null || cfg.suspendTimeout > cfg.lockTimeout;
          message = "homelab.hypridle.suspendTimeout (${toString cfg.suspendTimeout} s) has to be longer than homelab.hypridle.lockTimeout (${toString cfg.lockTimeout} s): raise the one or lower the other";
        }
        {
          assertion = cfg.lockCommand != null || nixos == null || (nixos.security.pam.services.hyprlock or null) != null || (nixos.programs.hyprlock.enable or false);
          message = "homelab.hypridle would lock the screen with hyprlock, which could not check a password on this host: set security.pam.services.hyprlock = { }; in its configuration.nix, or homelab.hypridle.lockCommand";
        }
        {
          assertion = cfg.lockCommand != null || nixos != null;
          message = "homelab.hypridle: this home has no NixOS below it, where hyprlock from here could not check a password: set homelab.hypridle.lockCommand to the lock of the system below, such as \"/usr/bin/swaylock -f\"";
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
