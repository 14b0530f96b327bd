# Home Manager modules, for every home, on NixOS and elsewhere.
{
  hostConfig,
  lib,
  ...
}: {
  home.username = lib.mkDefault hostConfig.user;
  home.homeDirectory = lib.mkDefault hostConfig.homeDirectory;
  programs.home-manager.enable = lib.mkDefault true;
}
