# The machine loses its power in the middle of its activation.
{
  system.activationScripts.fault = "sync; systemctl poweroff --force --force; sleep 100000";
}
