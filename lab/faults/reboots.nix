# The machine reboots during the activation.
{
  system.activationScripts.fault = "systemctl reboot; sleep 100000";
}
