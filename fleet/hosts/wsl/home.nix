# The home of the admin on wsl.
{
  home.stateVersion = "25.11";
}
