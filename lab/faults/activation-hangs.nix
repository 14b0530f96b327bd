# The activation script never ends.
{
  system.activationScripts.fault = "sleep 100000";
}
