{
  web = {
    sshHostName = "web.example.org";
    sshUser = "root";
    sshPort = 22;
    pubkey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEmYpLuvHGp/0z8vlqMpElZ7JGPnGpx1e0S3m7pL7s7J root@web";
  };
}
