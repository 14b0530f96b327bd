# sshd shows a host key that is not pinned, like a wrong machine at the address.
{lib, ...}: {
  services.openssh.hostKeys = lib.mkForce [
    {
      path = "/var/fault/host_key";
      type = "ed25519";
    }
  ];
  sops.age.sshKeyPaths = lib.mkForce ["/etc/ssh/ssh_host_ed25519_key"];
  system.activationScripts.fault = "mkdir -p /var/fault";
}
