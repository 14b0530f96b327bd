# All is well, but a unit has filled /run, which is bounded, to the last block when it is to be proven.
{
  systemd.services.fault = {
    wantedBy = ["multi-user.target"];
    serviceConfig = {
      Type = "oneshot";
      RemainAfterExit = true;
      ExecStart = "/usr/bin/sh -c 'mount -o remount,size=96m /run; cat /dev/zero >/run/fault; true'";
    };
  };
}
