# The player for films and sounds.
{
  config,
  lib,
  pkgs,
  ...
}: let
  inherit (lib) mkDefault mkEnableOption mkIf;
  cfg = config.homelab.player;
in {
  options.homelab.player.enable = mkEnableOption "the player, mpv, with the desktop's media keys";

  config = lib.mkMerge [
    {homelab.display.wanted.player = cfg.enable;}
    (mkIf (cfg.enable && config.homelab.display.enable) {
      programs.mpv = {
        enable = true;
        scripts = [pkgs.mpvScripts.mpris];
        config = lib.mapAttrs (_: mkDefault) {
          hwdec = "auto-safe";
          save-position-on-quit = true;
          keep-open = true;
          alang = "en";
          slang = "en";
        };
      };
      homelab.mime.defaults = lib.genAttrs [
        "video/mp4"
        "video/x-matroska"
        "video/webm"
        "audio/flac"
        "audio/mpeg"
        "audio/ogg"
      ] (_: ["mpv.desktop"]);
    })
  ];
}
