# Nothing more fits where the boot entries are: a file system of two pages is mounted there.
{
  system.activationScripts.fault = "mount -t tmpfs -o size=8k tmpfs /boot; head -c 8k /dev/zero >/boot/fault || true";
  boot.kernelParams = ["fault"];
}
