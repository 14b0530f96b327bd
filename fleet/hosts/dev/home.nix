# The home of the admin on dev.
{pkgs, ...}: {
  home.packages = [
    pkgs.jq
    pkgs.ripgrep
  ];
  programs.git.enable = true;

  home.stateVersion = "25.11";
}
