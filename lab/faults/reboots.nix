# The machine reboots in the middle of its activation.
{
  system.activationScripts.fault = "systemctl reboot; sleep 100000";
}
