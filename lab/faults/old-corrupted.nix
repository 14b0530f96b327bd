# The activation fails, and the system that ran before is damaged in the store: nothing can be gone back to.
{
  system.activationScripts.fault = "old=$(readlink -f /run/current-system); mount -o remount,rw /nix/store 2>/dev/null; chmod u+w $old/bin/switch-to-configuration; mv $old/bin/switch-to-configuration /var/damaged; false";
}
