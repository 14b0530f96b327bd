# The home of the admin on igpu.
{
  imports = [../common/home.nix ../common/shell.nix];

  home.stateVersion = "25.11";
}
