# Everything that the activation starts, including sshd, sees a date in 2001.
{
  system.activationScripts.fault = "systemctl set-environment LD_PRELOAD=/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1 'FAKETIME=@2001-01-01 00:00:00'; systemctl restart --no-block sshd";
}
