# The new system configures no address.
{
  networking.useDHCP = false;
  systemd.network.networks."10-fault" = {
    matchConfig.Name = "ens18";
    address = ["192.0.2.1/32"];
  };
}
