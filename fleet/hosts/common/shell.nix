# A bash that this repository manages, including ~/.bashrc and ~/.profile.
{
  homelab = {
    aliases.enable = true;
    prompt.enable = true;
  };
}
