# sshd's configuration is none: it does not come back.
{
  services.openssh.extraConfig = "ThisIsNoOption yes";
}
