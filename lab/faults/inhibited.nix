# The new system has a different D-Bus and needs a boot: switch-to-configuration ends with 1.
{
  system.switch.inhibitors.dbus-implementation = "broker";
}
