# Home Manager modules, for every home, on NixOS and elsewhere.
{
  config,
  lib,
  ...
}: let
  inherit (config.homelab.fleet) host;
in {
  imports = [
    ../fleet.nix
    ./identity.nix
  ];

  home.username = lib.mkIf (host != null) (lib.mkDefault host.user);
  home.homeDirectory = lib.mkIf (host != null) (lib.mkDefault host.homeDirectory);
  programs.home-manager.enable = lib.mkDefault true;
}
