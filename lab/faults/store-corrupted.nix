# The new system is damaged in the store during its activation: the program that writes its boot entry is broken.
# It alone: an optimised store has one file for what is alike in the old one, which is why the file is replaced.
{
  system.activationScripts.fault = "mount -o remount,rw /nix/store 2>/dev/null || true; rm -f $systemConfig/bin/switch-to-configuration; echo damaged >$systemConfig/bin/switch-to-configuration; chmod +x $systemConfig/bin/switch-to-configuration";
}
