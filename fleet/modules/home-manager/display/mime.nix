# What opens what. The modules that bring a program say what it opens; the browser and the editor are said here.
{
  config,
  lib,
  ...
}: let
  inherit (lib) mkEnableOption mkIf mkOption types;
  cfg = config.homelab.mime;
  desktopFile = types.strMatching "[A-Za-z0-9._-]+\\.desktop" // {description = "name of a .desktop file";};
  each = kinds: program: lib.optionalAttrs (program != null) (lib.genAttrs kinds (_: [program]));
in {
  options.homelab.mime = {
    enable = mkEnableOption "the list of what opens which kind of file, mimeapps.list. The file is then read-only";
    browser = mkOption {
      type = types.nullOr desktopFile;
      default = null;
      example = "firefox.desktop";
      description = "What opens web pages and links; null leaves it to the desktop.";
    };
    editor = mkOption {
      type = types.nullOr desktopFile;
      default = null;
      example = "nvim.desktop";
      description = "What opens texts; null leaves it to the desktop.";
    };
    defaults = mkOption {
      type = types.attrsOf (types.listOf desktopFile);
      default = {};
      example = {"image/png" = ["org.kde.gwenview.desktop"];};
      description = "What opens a kind, the first that is installed.";
    };
  };

  config = lib.mkMerge [
    {homelab.display.wanted.mime = cfg.enable;}
    (mkIf (cfg.enable && config.homelab.display.enable) {
      homelab.mime.defaults =
        each ["text/html" "application/xhtml+xml" "x-scheme-handler/http" "x-scheme-handler/https"] cfg.browser
        // each ["text/plain" "text/markdown" "text/csv" "text/x-log" "application/json"] cfg.editor;
      xdg.mimeApps = {
        enable = true;
        defaultApplications = cfg.defaults;
      };
    })
  ];
}
