# The new system is damaged in the store while it is activated: what writes its boot entry is no program any more.
{
  system.activationScripts.fault = "mount -o remount,rw /nix/store 2>/dev/null; chmod u+w $systemConfig/bin/switch-to-configuration; echo damaged >$systemConfig/bin/switch-to-configuration";
}
