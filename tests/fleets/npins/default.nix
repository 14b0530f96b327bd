let
  sources = import ./npins;
in {
  web = import "${sources.nixpkgs}/nixos" {configuration = ./hardware-configuration.nix;};
}
