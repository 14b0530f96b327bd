# The home of the admin on epimetheus.
{
  home.stateVersion = "25.11";
}
