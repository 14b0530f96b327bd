# The fleet's theme for Qt and KDE programs, also outside of Plasma.
#
# KDE's platform theme makes them use a colour scheme: it looks up the scheme that kdeglobals names. Only that name is
# written to kdeglobals, which remains the user's file.
{
  config,
  lib,
  ...
}: let
  inherit (lib) mkDefault mkEnableOption mkIf;
  inherit (config.homelab.theme) colors;
  cfg = config.homelab.qt;

  # `#20242c` in the notation `32,36,44`
  rgb = hex: lib.concatMapStringsSep "," (at: toString (lib.fromHexString (lib.substring at 2 hex))) [1 3 5];
  group = background: alternate: ''
    BackgroundNormal=${rgb background}
    BackgroundAlternate=${rgb alternate}
    ForegroundNormal=${rgb colors.foreground}
    ForegroundInactive=${rgb colors.border}
    ForegroundActive=${rgb colors.primary}
    ForegroundLink=${rgb colors.info}
    ForegroundNegative=${rgb colors.urgent}
    ForegroundNeutral=${rgb colors.warning}
    ForegroundPositive=${rgb colors.success}
    DecorationFocus=${rgb colors.primary}
    DecorationHover=${rgb colors.secondary}
  '';
in {
  options.homelab.qt.enable = mkEnableOption "the fleet's theme for Qt and KDE programs";

  config = lib.mkMerge [
    {homelab.display.wanted.qt = cfg.enable;}
    (mkIf (cfg.enable && config.homelab.display.enable) {
      qt = {
        enable = true;
        platformTheme.name = mkDefault "kde";
        style.name = mkDefault "breeze";
        kde.settings.kdeglobals.General.ColorScheme = mkDefault "Homelab";
      };
      xdg.dataFile."color-schemes/Homelab.colors".text = ''
        [General]
        Name=Homelab
        ColorScheme=Homelab

        [Colors:Window]
        ${group colors.background colors.backgroundAlt}
        [Colors:View]
        ${group colors.background colors.backgroundAlt}
        [Colors:Button]
        ${group colors.backgroundAlt colors.background}
        [Colors:Tooltip]
        ${group colors.backgroundAlt colors.background}
        [Colors:Complementary]
        ${group colors.background colors.backgroundAlt}
        [Colors:Selection]
        BackgroundNormal=${rgb colors.primary}
        BackgroundAlternate=${rgb colors.secondary}
        ForegroundNormal=${rgb colors.background}
        ForegroundInactive=${rgb colors.background}
        ForegroundActive=${rgb colors.background}

        [WM]
        activeBackground=${rgb colors.backgroundAlt}
        activeForeground=${rgb colors.foreground}
        inactiveBackground=${rgb colors.background}
        inactiveForeground=${rgb colors.border}
      '';
    })
  ];
}
