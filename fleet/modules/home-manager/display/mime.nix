# Default programs. Each module lists what its program opens; the browser and the editor are set here.
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
    enable = mkEnableOption "the list of default programs, mimeapps.list. The file is then read-only";
    browser = mkOption {
      type = types.nullOr desktopFile;
      default = null;
      example = "firefox.desktop";
      description = "The program for web pages and links; null: the desktop decides.";
    };
    editor = mkOption {
      type = types.nullOr desktopFile;
      default = null;
      example = "nvim.desktop";
      description = "The program for text files; null: the desktop decides.";
    };
    defaults = mkOption {
      type = types.attrsOf (types.listOf desktopFile);
      default = {};
      example = {"image/png" = ["org.kde.gwenview.desktop"];};
      description = "The programs for a MIME type; the first installed one is used.";
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
