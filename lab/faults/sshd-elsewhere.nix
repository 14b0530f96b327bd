# sshd listens on a different port than expected; nothing fails.
{
  services.openssh.ports = [2222];
}
