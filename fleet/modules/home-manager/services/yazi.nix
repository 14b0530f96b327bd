# Files in the terminal.
{
  config,
  lib,
  ...
}: let
  inherit (lib) mkDefault mkEnableOption mkIf;
  inherit (config.homelab.theme) colors;
in {
  options.homelab.yazi.enable = mkEnableOption "the file manager for the terminal, Yazi; `y` starts it and changes the shell's directory on exit";

  config = mkIf config.homelab.yazi.enable {
    programs.yazi = {
      enable = true;
      shellWrapperName = mkDefault "y";
      settings.mgr = lib.mapAttrs (_: mkDefault) {
        show_hidden = true;
        sort_by = "natural";
        sort_dir_first = true;
        linemode = "size";
      };
      theme = {
        mgr = {
          cwd.fg = colors.primary;
          find_keyword = {
            fg = colors.secondary;
            bold = true;
          };
          marker_selected = {
            fg = colors.secondary;
            bg = colors.secondary;
          };
          marker_copied = {
            fg = colors.info;
            bg = colors.info;
          };
          marker_cut = {
            fg = colors.warning;
            bg = colors.warning;
          };
          border_style.fg = colors.border;
        };
        mode = {
          normal_main = {
            fg = colors.background;
            bg = colors.primary;
            bold = true;
          };
          select_main = {
            fg = colors.background;
            bg = colors.secondary;
            bold = true;
          };
        };
      };
    };
  };
}
