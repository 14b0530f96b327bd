# sshd's configuration is invalid: it does not start again.
{
  services.openssh.extraConfig = "ThisIsNoOption yes";
}
