# Programs that are configured by files: Yazi, Zathura, mpv, MPD.
{
  config,
  lib,
  pkgs,
  ...
}: let
  inherit (lib) mkIf types;
  inherit (import ./options.nix lib) flag lines of set switch;
  inherit (config.programs) mpv yazi zathura;
  inherit (config.services) mpd mpd-mpris;
  toml = (pkgs.formats.toml {}).generate;
  word = value:
    if lib.isBool value
    then lib.boolToYesNo value
    else toString value;
  mpdConf = pkgs.writeText "mpd.conf" ''
    music_directory "${mpd.musicDirectory}"
    playlist_directory "${mpd.dataDir}/playlists"
    db_file "${mpd.dataDir}/tag_cache"
    state_file "${mpd.dataDir}/state"
    bind_to_address "${mpd.network.listenAddress}"
    port "${toString mpd.network.port}"
    ${mpd.extraConfig}
  '';
in {
  options = {
    programs.yazi =
      switch
      // {
        settings = set;
        theme = set;
        keymap = set;
        shellWrapperName = of types.str "y";
      };
    programs.zathura =
      switch
      // {
        options = set;
        mappings = set;
        extraConfig = lines;
      };
    programs.mpv =
      switch
      // {
        config = set;
        bindings = set;
        scripts = of (types.listOf types.package) [];
      };
    services.mpd =
      switch
      // {
        musicDirectory = lib.mkOption {type = types.either types.path types.str;};
        dataDir = of types.str "${config.xdg.dataHome}/mpd";
        extraConfig = lines;
        network = {
          listenAddress = of types.str "127.0.0.1";
          port = of types.port 6600;
          startWhenNeeded = flag false;
        };
      };
    services.mpd-mpris = switch;
  };

  config = lib.mkMerge [
    (mkIf yazi.enable {
      home.packages = [pkgs.yazi];
      xdg.configFile = {
        "yazi/yazi.toml" = mkIf (yazi.settings != {}) {source = toml "yazi-settings" yazi.settings;};
        "yazi/theme.toml" = mkIf (yazi.theme != {}) {source = toml "yazi-theme" yazi.theme;};
        "yazi/keymap.toml" = mkIf (yazi.keymap != {}) {source = toml "yazi-keymap" yazi.keymap;};
      };
      programs.bash.initExtra = ''
        ${yazi.shellWrapperName}() {
          local left
          left=$(mktemp) || return
          command yazi "$@" --cwd-file="$left"
          if [[ -s $left ]]; then builtin cd -- "$(<"$left")" || true; fi
          rm -f -- "$left"
        }
      '';
    })
    (mkIf zathura.enable {
      home.packages = [pkgs.zathura];
      xdg.configFile."zathura/zathurarc".text =
        zathura.extraConfig
        + lib.concatStrings (lib.mapAttrsToList (name: value: "set ${name} \"${
            if lib.isBool value
            then lib.boolToString value
            else toString value
          }\"\n")
          zathura.options)
        + lib.concatStrings (lib.mapAttrsToList (key: action: "map ${key} ${action}\n") zathura.mappings);
    })
    (mkIf mpv.enable {
      home.packages = [pkgs.mpv] ++ mpv.scripts;
      xdg.configFile = {
        "mpv/mpv.conf" = mkIf (mpv.config != {}) {text = lib.generators.toKeyValue {} (lib.mapAttrs (_: word) mpv.config);};
        "mpv/input.conf" = mkIf (mpv.bindings != {}) {text = lib.concatStrings (lib.mapAttrsToList (key: action: "${key} ${action}\n") mpv.bindings);};
      };
    })
    (mkIf mpd.enable {
      home.packages = [pkgs.mpd];
      systemd.user.services.mpd = {
        Unit.Description = "Music Player Daemon";
        Unit.Requires = lib.optional mpd.network.startWhenNeeded "mpd.socket";
        Service = {
          Type = "notify";
          ExecStart = "${pkgs.mpd}/bin/mpd --no-daemon ${mpdConf}";
        };
        Install.WantedBy = lib.optional (!mpd.network.startWhenNeeded) "default.target";
      };
      systemd.user.sockets.mpd = mkIf mpd.network.startWhenNeeded {
        Socket.ListenStream = ["${mpd.network.listenAddress}:${toString mpd.network.port}" "%t/mpd/socket"];
        Install.WantedBy = ["sockets.target"];
      };
    })
    (mkIf mpd-mpris.enable {
      systemd.user.services.mpd-mpris = {
        Unit.Description = "Media keys for MPD";
        Service.ExecStart = lib.getExe pkgs.mpd-mpris;
        Install.WantedBy = ["default.target"];
      };
    })
  ];
}
