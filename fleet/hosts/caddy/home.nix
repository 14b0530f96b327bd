# The only configuration of caddy: a home. The system there created the user's ~/.bashrc, which stays, so aliases and
# prompt do not come from here.
{pkgs, ...}: {
  imports = [../common/home.nix];

  home.packages = [
    pkgs.git
    pkgs.ripgrep
  ];
  home.stateVersion = "25.11";
}
