# The home of the admin on framework.
{
  home.stateVersion = "25.11";
}
