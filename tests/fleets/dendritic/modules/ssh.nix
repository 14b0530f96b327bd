{
  flake.nixosModules.ssh.services.openssh.settings.X11Forwarding = false;
}
