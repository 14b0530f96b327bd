# A user's home, as these fleets have it.
{
  home.file.".config/words".text = "at home";
  home.stateVersion = "25.11";
}
