# All that this repository knows of caddy: a home. The system below made its user a ~/.bashrc, which stays: no aliases and
# prompt from here.
{pkgs, ...}: {
  imports = [../common/home.nix];

  home.packages = [
    pkgs.git
    pkgs.ripgrep
  ];
  home.stateVersion = "25.11";
}
