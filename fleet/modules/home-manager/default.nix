# Home Manager modules, for every home, on NixOS and elsewhere.
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
  ];

  # On NixOS they are what the machine says of the user.
  home.username = lib.mkIf (alone && host != null) (lib.mkDefault host.user);
  home.homeDirectory = lib.mkIf (alone && host != null) (lib.mkDefault host.homeDirectory);
  programs.home-manager.enable = lib.mkDefault true;
}
