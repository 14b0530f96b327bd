# Home Manager modules for every home, on NixOS and elsewhere. Every module is listed here, and nowhere else.
{
  config,
  lib,
  specialArgs,
  ...
}: let
  inherit (config.homelab.fleet) host;
  alone = specialArgs.osConfig or null == null;
in {
  imports = [
    ../fleet.nix
    ./identity.nix

    ./display/display.nix
    ./display/theme.nix
    ./display/gtk.nix
    ./display/qt.nix
    ./display/waybar.nix
    ./display/hypridle.nix
    ./display/dolphin.nix
    ./display/mime.nix
    ./display/remote-desktop.nix

    ./shell/aliases.nix
    ./shell/prompt.nix
    ./shell/scripts.nix

    ./services/pdf.nix
    ./services/ssh.nix
    ./services/yazi.nix

    ./multimedia/music.nix
    ./multimedia/player.nix
  ];

  # On NixOS the machine's configuration of the user sets these.
  home.username = lib.mkIf (alone && host != null) (lib.mkDefault host.user);
  home.homeDirectory = lib.mkIf (alone && host != null) (lib.mkDefault host.homeDirectory);
  programs.home-manager.enable = lib.mkDefault true;
}
