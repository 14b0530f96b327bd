# The fleet's theme for GTK programs.
{
  config,
  lib,
  pkgs,
  ...
}: let
  inherit (lib) mkDefault mkEnableOption mkIf;
  inherit (config.homelab) nixos theme;
  cfg = config.homelab.gtk;
  dark = lib.optionalString theme.dark;
in {
  options.homelab.gtk.enable = mkEnableOption "the fleet's theme for GTK programs";

  config = lib.mkMerge [
    {homelab.display.wanted.gtk = cfg.enable;}
    (mkIf (cfg.enable && config.homelab.display.enable) {
      assertions = [
        {
          assertion = nixos == null || (nixos.programs.dconf.enable or false);
          message = "homelab.gtk writes to dconf, which this host does not have: set programs.dconf.enable = true in its configuration.nix";
        }
      ];

      gtk = {
        enable = true;
        colorScheme = mkDefault (
          if theme.dark
          then "dark"
          else "light"
        );
        font = {
          name = mkDefault theme.font.name;
          package = mkDefault pkgs.dejavu_fonts;
          size = mkDefault theme.font.size;
        };
        theme = {
          name = mkDefault "adw-gtk3${dark "-dark"}";
          package = mkDefault pkgs.adw-gtk3;
        };
        iconTheme = {
          name = mkDefault "Adwaita";
          package = mkDefault pkgs.adwaita-icon-theme;
        };
        # GTK 4 programs have their own theme; one for GTK 3 would break them.
        gtk4.theme = mkDefault null;
        gtk3.extraCss = ''
          @define-color accent_color ${theme.colors.primary};
          @define-color accent_bg_color ${theme.colors.primary};
        '';
        gtk4.extraCss = ''
          :root { --accent-color: ${theme.colors.primary}; --accent-bg-color: ${theme.colors.primary}; }
        '';
      };
    })
  ];
}
