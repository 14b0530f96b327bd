# The bar, for compositors without their own. Plasma and GNOME have one.
{
  config,
  lib,
  pkgs,
  ...
}: let
  inherit (lib) mkDefault mkEnableOption mkIf mkOption types;
  inherit (config.homelab.theme) colors font;
  cfg = config.homelab.waybar;
in {
  options.homelab.waybar = {
    enable = mkEnableOption "the bar, Waybar, started with the graphical session";
    position = mkOption {
      type = types.enum ["top" "bottom"];
      default = "top";
      description = "The edge of the screen.";
    };
    battery = mkOption {
      type = types.bool;
      default = false;
      description = "Whether to show a battery.";
    };
  };

  config = lib.mkMerge [
    {homelab.display.wanted.waybar = cfg.enable;}
    (mkIf (cfg.enable && config.homelab.display.enable) {
      home.packages = [pkgs.dejavu_fonts];

      programs.waybar = {
        enable = true;
        systemd.enable = mkDefault true;
        settings.main = {
          layer = "top";
          inherit (cfg) position;
          height = 30;
          spacing = 8;
          modules-left = ["hyprland/workspaces" "hyprland/window"];
          modules-center = ["clock"];
          modules-right = ["idle_inhibitor" "network" "cpu" "memory"] ++ lib.optional cfg.battery "battery" ++ ["wireplumber" "tray"];

          clock = {
            format = "{:%a %d %b %H:%M}";
            tooltip-format = "{:%A, %d %B %Y}";
          };
          idle_inhibitor = {
            format = "{icon}";
            format-icons = {
              activated = "awake";
              deactivated = "idle";
            };
          };
          network = {
            format-ethernet = "{ifname}";
            format-wifi = "{essid} {signalStrength}%";
            format-disconnected = "no network";
            tooltip-format = "{ipaddr}/{cidr} by {gwaddr}";
          };
          cpu = {
            interval = 5;
            format = "cpu {usage}%";
          };
          memory = {
            interval = 15;
            format = "mem {percentage}%";
          };
          battery = {
            states = {
              warning = 25;
              critical = 10;
            };
            format = "bat {capacity}%";
            format-charging = "bat {capacity}%+";
          };
          wireplumber = {
            format = "vol {volume}%";
            format-muted = "muted";
          };
          tray.spacing = 8;
        };
        style = ''
          * {
            font-family: "${font.monospace}", "${font.name}";
            font-size: ${toString font.size}pt;
            border: none;
            border-radius: 0;
          }
          window#waybar { background: ${colors.background}; color: ${colors.foreground}; }
          tooltip { background: ${colors.backgroundAlt}; border: 1px solid ${colors.border}; }
          #workspaces button { padding: 0 6px; color: ${colors.border}; }
          #workspaces button.active { color: ${colors.background}; background: ${colors.primary}; }
          #workspaces button.urgent { color: ${colors.background}; background: ${colors.urgent}; }
          #window, #clock { color: ${colors.foreground}; }
          #network.disconnected, #battery.critical { color: ${colors.urgent}; }
          #battery.warning { color: ${colors.warning}; }
          #battery.charging, #idle_inhibitor.activated { color: ${colors.success}; }
        '';
      };
    })
  ];
}
