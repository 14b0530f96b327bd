# The activation fails, and the previous system is damaged in the store: a rollback is impossible.
{
  system.activationScripts.fault = "old=$(readlink -f /run/current-system); mount -o remount,rw /nix/store 2>/dev/null; chmod u+w $old/bin/switch-to-configuration; mv $old/bin/switch-to-configuration /var/damaged; false";
}
