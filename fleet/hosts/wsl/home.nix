# The home of the admin on wsl.
{
  imports = [../common/home.nix ../common/shell.nix];

  home.stateVersion = "25.11";
}
