{
  imports = [../web/hardware-configuration.nix];
  clan.core.networking.targetHost = "root@192.0.2.11:2222?IdentityFile=/home/al/.ssh/clan";
}
