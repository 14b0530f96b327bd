# Another bus than the running one: the new system asks for a boot, and switch-to-configuration ends with 1.
{
  system.switch.inhibitors.dbus-implementation = "broker";
}
