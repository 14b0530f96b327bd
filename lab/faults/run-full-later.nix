# The system works, but a unit has filled /run, which is limited, before it is verified.
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
