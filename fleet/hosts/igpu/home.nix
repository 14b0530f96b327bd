# The home of the admin on igpu.
{
  home.stateVersion = "25.11";
}
