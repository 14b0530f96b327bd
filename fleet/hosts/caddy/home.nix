# All that this repository knows of caddy: a home.
{pkgs, ...}: {
  home.packages = [
    pkgs.git
    pkgs.ripgrep
  ];
  home.stateVersion = "25.11";
}
