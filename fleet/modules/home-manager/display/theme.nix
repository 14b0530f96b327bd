# Colours and font, in one place for all themed programs.
{
  config,
  lib,
  ...
}: let
  inherit (lib) mkOption types;
  color = default: description:
    mkOption {
      type = types.strMatching "#[0-9A-Fa-f]{6}" // {description = "colour as #rrggbb";};
      inherit default description;
    };
in {
  options.homelab.theme = {
    dark = mkOption {
      type = types.bool;
      default = true;
      description = "Whether programs with a dark and a light theme use the dark one.";
    };
    font = {
      name = mkOption {
        type = types.str;
        default = "DejaVu Sans";
        description = "The font of bars, menus and windows.";
      };
      monospace = mkOption {
        type = types.str;
        default = "DejaVu Sans Mono";
        description = "The font of terminals and of the bar's figures.";
      };
      size = mkOption {
        type = types.ints.positive;
        default = 11;
        description = "The size of both, in points.";
      };
    };
    colors = {
      background = color "#20242c" "The colour behind everything.";
      backgroundAlt = color "#2c323d" "The colour behind what stands out: cards, buttons, chosen rows.";
      foreground = color "#d5dae3" "The colour of text.";
      border = color "#59616f" "The colour of borders, and of text that is inactive.";
      primary = color "#6fa8dc" "The accent: the colour of what has the focus.";
      secondary = color "#9fc5a8" "The second accent, for what is chosen or hovered.";
      info = color "#74b6c4" "The colour of what is only said.";
      success = color "#8fbf7f" "The colour of what went well.";
      warning = color "#d9b36c" "The colour of what needs attention.";
      urgent = color "#d9777f" "The colour of what needs attention at once.";
    };
  };

  # The fonts must be installed.
  config.fonts.fontconfig.enable =
    lib.mkIf (config.homelab.display.enable && (config.homelab.gtk.enable || config.homelab.waybar.enable)) (lib.mkDefault true);
}
