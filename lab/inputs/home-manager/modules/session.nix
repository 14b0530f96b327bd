# Services of a graphical session: bar, idle daemon and lock, disks, VNC.
{
  config,
  lib,
  pkgs,
  ...
}: let
  inherit (lib) mkIf types;
  inherit (import ./options.nix lib) flag lines of set switch;
  inherit (config) programs services;
  target = config.wayland.systemd.target;

  # Hyprland's notation: sections in braces; a list is one section, or line, per entry.
  hyprconf = indent: set:
    lib.concatStrings (lib.concatLists (lib.mapAttrsToList (name: value:
      map (one:
        if lib.isAttrs one
        then "${indent}${name} {\n${hyprconf "${indent}  " one}${indent}}\n"
        else "${indent}${name} = ${
          if lib.isBool one
          then lib.boolToString one
          else toString one
        }\n") (lib.toList value))
    set));
  service = description: command: {
    Unit = {
      Description = description;
      After = [target];
      PartOf = [target];
    };
    Service.ExecStart = command;
    Install.WantedBy = [target];
  };
in {
  options = {
    wayland.systemd.target = of types.str "graphical-session.target";
    programs.waybar =
      switch
      // {
        settings = of (types.either (types.listOf types.anything) (types.attrsOf types.anything)) [];
        style = of (types.nullOr (types.either types.path types.lines)) null;
        systemd = switch;
      };
    programs.hyprlock =
      switch
      // {
        settings = set;
        extraConfig = lines;
      };
    services.hypridle = switch // {settings = set;};
    services.udiskie =
      switch
      // {
        automount = flag true;
        notify = flag true;
        tray = of (types.enum ["always" "auto" "never"]) "auto";
        settings = set;
      };
    services.wayvnc =
      switch
      // {
        autoStart = flag false;
        settings = set;
      };
  };

  config = lib.mkMerge [
    (mkIf programs.waybar.enable {
      home.packages = [pkgs.waybar];
      xdg.configFile = {
        "waybar/config".text = builtins.toJSON (
          if lib.isAttrs programs.waybar.settings
          then lib.attrValues programs.waybar.settings
          else programs.waybar.settings
        );
        "waybar/style.css" = mkIf (programs.waybar.style != null) {text = programs.waybar.style;};
      };
      systemd.user.services.waybar = mkIf programs.waybar.systemd.enable (service "Bar" "${pkgs.waybar}/bin/waybar");
    })
    (mkIf programs.hyprlock.enable {
      home.packages = [pkgs.hyprlock];
      xdg.configFile."hypr/hyprlock.conf".text = hyprconf "" programs.hyprlock.settings + programs.hyprlock.extraConfig;
    })
    (mkIf services.hypridle.enable {
      xdg.configFile."hypr/hypridle.conf".text = hyprconf "" services.hypridle.settings;
      systemd.user.services.hypridle = service "Idle daemon" (lib.getExe pkgs.hypridle);
    })
    (mkIf services.udiskie.enable {
      xdg.configFile."udiskie/config.yml".text = builtins.toJSON (lib.recursiveUpdate {
          program_options = {
            inherit (services.udiskie) automount notify;
            tray =
              {
                always = true;
                never = false;
                auto = "auto";
              }
              .${services.udiskie.tray};
          };
        }
        services.udiskie.settings);
      systemd.user.services.udiskie = service "Mounts disks" (lib.getExe pkgs.udiskie);
    })
    (mkIf services.wayvnc.enable {
      home.packages = [pkgs.wayvnc];
      xdg.configFile."wayvnc/config".text = lib.generators.toKeyValue {} services.wayvnc.settings;
      systemd.user.services.wayvnc = removeAttrs (service "VNC server" (lib.getExe pkgs.wayvnc)) (lib.optional (!services.wayvnc.autoStart) "Install");
    })
  ];
}
