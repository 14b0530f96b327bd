# A bash that this repository keeps, ~/.bashrc and ~/.profile with it.
{
  homelab = {
    aliases.enable = true;
    prompt.enable = true;
  };
}
