# What the owner has on every machine. None of it needs a display.
{
  homelab = {
    ssh.enable = true;
    scripts.enable = true;
    yazi.enable = true;
  };
}
