# sshd listens on another port than everybody thinks; nothing fails.
{
  services.openssh.ports = [2222];
}
