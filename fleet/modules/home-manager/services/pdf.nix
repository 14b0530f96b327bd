# Reading PDF files.
{
  config,
  lib,
  ...
}: let
  inherit (lib) mkDefault mkEnableOption mkIf mkOption types;
  inherit (config.homelab.theme) colors;
  cfg = config.homelab.pdf;
in {
  options.homelab.pdf = {
    enable = mkEnableOption "the PDF reader, Zathura";
    recolor = mkOption {
      type = types.bool;
      default = false;
      description = "Whether pages are shown in the theme's colours; Ctrl-R toggles this.";
    };
  };

  config = lib.mkMerge [
    {homelab.display.wanted.pdf = cfg.enable;}
    (mkIf (cfg.enable && config.homelab.display.enable) {
      programs.zathura = {
        enable = true;
        options = lib.mapAttrs (_: mkDefault) {
          inherit (cfg) recolor;
          recolor-lightcolor = colors.background;
          recolor-darkcolor = colors.foreground;
          default-bg = colors.background;
          default-fg = colors.foreground;
          statusbar-bg = colors.backgroundAlt;
          statusbar-fg = colors.foreground;
          inputbar-bg = colors.backgroundAlt;
          inputbar-fg = colors.primary;
          highlight-color = colors.warning;
          adjust-open = "width";
          selection-clipboard = "clipboard";
        };
      };
      homelab.mime.defaults."application/pdf" = ["org.pwmt.zathura.desktop"];
    })
  ];
}
