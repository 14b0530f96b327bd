# A closed lid suspends the machine, and hibernates it later: to the swap partition, and back from there.
{config, ...}: {
  boot.resumeDevice = (builtins.head config.swapDevices).device;

  services.logind.settings.Login = {
    HandleLidSwitch = "suspend-then-hibernate";
    HandleLidSwitchExternalPower = "suspend";
  };
  systemd.sleep.settings.Sleep = {
    AllowSuspendThenHibernate = true;
    HibernateDelaySec = "1h";
    HibernateOnACPower = false;
  };
}
