# Music: a daemon that plays the user's own collection, also without a display.
{
  config,
  lib,
  pkgs,
  ...
}: let
  inherit (lib) mkDefault mkEnableOption mkIf mkOption types;
  cfg = config.homelab.music;
in {
  options.homelab.music = {
    enable = mkEnableOption "the music player daemon, MPD, of the user, and the client ncmpcpp; only this machine reaches it";
    directory = mkOption {
      type = types.strMatching "/.*" // {description = "absolute path, as a string";};
      default = "${config.home.homeDirectory}/Music";
      defaultText = lib.literalExpression ''"''${config.home.homeDirectory}/Music"'';
      description = "Where the music is.";
    };
    output = mkOption {
      type = types.enum ["pipewire" "pulse" "alsa"];
      default = "pipewire";
      description = "The sound system for output.";
    };
  };

  config = mkIf cfg.enable {
    home.packages = [pkgs.ncmpcpp];
    services.mpd = {
      enable = true;
      musicDirectory = mkDefault cfg.directory;
      network.startWhenNeeded = mkDefault true;
      extraConfig = ''
        audio_output {
          type "${cfg.output}"
          name "${cfg.output}"
        }
        auto_update "yes"
      '';
    };
    # The desktop handles the media keys.
    services.mpd-mpris.enable = mkDefault config.homelab.display.enable;
  };
}
