# Files: the file manager, and automatic mounting of disks.
{
  config,
  lib,
  pkgs,
  ...
}: let
  inherit (lib) mkDefault mkEnableOption mkIf mkOption types;
  inherit (config.homelab) nixos;
  cfg = config.homelab.dolphin;
in {
  options.homelab.dolphin = {
    enable = mkEnableOption "the file manager, Dolphin, with archives and previews";
    automount = mkOption {
      type = types.bool;
      default = true;
      description = "Whether udiskie mounts a disk when it is plugged in.";
    };
  };

  config = lib.mkMerge [
    {homelab.display.wanted.dolphin = cfg.enable;}
    (mkIf (cfg.enable && config.homelab.display.enable) {
      assertions = [
        {
          assertion = !cfg.automount || nixos == null || (nixos.services.udisks2.enable or false);
          message = "homelab.dolphin.automount needs udisks on the host: set services.udisks2.enable = true in its configuration.nix, or homelab.dolphin.automount = false";
        }
      ];

      home.packages = [
        pkgs.kdePackages.dolphin
        pkgs.kdePackages.dolphin-plugins
        pkgs.kdePackages.kio-extras
        pkgs.kdePackages.ark
        # previews
        pkgs.kdePackages.kdegraphics-thumbnailers
        pkgs.kdePackages.ffmpegthumbs
      ];
      services.udiskie = mkIf cfg.automount {
        enable = true;
        tray = mkDefault "never";
      };

      homelab.mime.defaults = {
        "inode/directory" = ["org.kde.dolphin.desktop"];
        "application/zip" = ["org.kde.ark.desktop"];
        "application/x-tar" = ["org.kde.ark.desktop"];
        "application/x-compressed-tar" = ["org.kde.ark.desktop"];
      };
    })
  ];
}
