# The home of the admin on dev.
{pkgs, ...}: {
  imports = [../common/home.nix ../common/shell.nix];

  home.packages = [
    pkgs.jq
    pkgs.ripgrep
  ];
  programs.git.enable = true;

  home.stateVersion = "25.11";
}
