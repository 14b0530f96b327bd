# GTK and Qt, fonts, and default programs.
{
  config,
  lib,
  ...
}: let
  inherit (lib) mkIf types;
  inherit (import ./options.nix lib) lines of set switch;
  inherit (config) gtk qt;
  mime = config.xdg.mimeApps;
  named = type: of (types.nullOr (types.attrsOf types.anything)) type;
  kinds = of (types.attrsOf (types.coercedTo types.str lib.singleton (types.listOf types.str))) {};

  settings = version: let
    dark = gtk.colorScheme == "dark";
  in
    lib.generators.toINI {} {
      Settings =
        lib.optionalAttrs (gtk.font != null) {gtk-font-name = "${gtk.font.name} ${toString gtk.font.size}";}
        // lib.optionalAttrs (version.theme != null) {gtk-theme-name = version.theme.name;}
        // lib.optionalAttrs (gtk.iconTheme != null) {gtk-icon-theme-name = gtk.iconTheme.name;}
        // lib.optionalAttrs dark {gtk-application-prefer-dark-theme = true;};
    };
  # the packages of values with a name and a package
  packages = lib.concatMap (chosen: lib.optional (chosen != null && chosen.package or null != null) chosen.package);

  # every value of `file` with its groups
  entries = file: groups: value:
    if lib.isAttrs value
    then lib.concatLists (lib.mapAttrsToList (name: entries file (groups ++ [name])) value)
    else ["kwriteconfig6 --file '${config.xdg.configHome}/${file}' ${lib.concatMapStrings (g: "--group ${lib.escapeShellArg g} ") (lib.init groups)}--key ${lib.escapeShellArg (lib.last groups)} -- ${lib.escapeShellArg (toString value)}"];
  joined = lib.mapAttrs (_: lib.concatStringsSep ";");
in {
  options = {
    fonts.fontconfig.enable = of types.bool false;
    gtk =
      switch
      // {
        colorScheme = of (types.nullOr (types.enum ["dark" "light"])) null;
        font = named null;
        theme = named null;
        iconTheme = named null;
        gtk3 = {
          extraCss = lines;
          theme = named gtk.theme;
        };
        gtk4 = {
          extraCss = lines;
          theme = named gtk.theme;
        };
      };
    qt =
      switch
      // {
        platformTheme.name = of (types.nullOr types.str) null;
        style.name = of (types.nullOr types.str) null;
        kde.settings = set;
      };
    xdg.mimeApps =
      switch
      // {
        defaultApplications = kinds;
        associations.added = kinds;
        associations.removed = kinds;
      };
  };

  config = lib.mkMerge [
    (mkIf gtk.enable {
      home.packages = packages [gtk.font gtk.theme gtk.iconTheme];
      xdg.configFile = {
        "gtk-3.0/settings.ini".text = settings gtk.gtk3;
        "gtk-4.0/settings.ini".text = settings gtk.gtk4;
        "gtk-3.0/gtk.css" = mkIf (gtk.gtk3.extraCss != "") {text = gtk.gtk3.extraCss;};
        "gtk-4.0/gtk.css" = mkIf (gtk.gtk4.extraCss != "") {text = gtk.gtk4.extraCss;};
      };
    })
    (mkIf qt.enable {
      home.sessionVariables = lib.filterAttrs (_: v: v != null) {
        QT_QPA_PLATFORMTHEME = qt.platformTheme.name;
        QT_STYLE_OVERRIDE = qt.style.name;
      };
      systemd.user.sessionVariables = lib.filterAttrs (_: v: v != null) {
        QT_QPA_PLATFORMTHEME = qt.platformTheme.name;
        QT_STYLE_OVERRIDE = qt.style.name;
      };
    })
    (mkIf (qt.kde.settings != {}) {
      home.activation.kconfig = lib.hm.dag.entryAfter ["writeBoundary"] (
        lib.concatStringsSep "\n" (lib.concatLists (lib.mapAttrsToList (file: entries file []) qt.kde.settings))
      );
    })
    (mkIf mime.enable {
      xdg.configFile."mimeapps.list".text = lib.generators.toINI {} {
        "Added Associations" = joined mime.associations.added;
        "Removed Associations" = joined mime.associations.removed;
        "Default Applications" = joined mime.defaultApplications;
      };
      xdg.dataFile."applications/mimeapps.list".source = config.xdg.configFile."mimeapps.list".source;
    })
  ];
}
