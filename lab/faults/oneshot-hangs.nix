# A oneshot unit of the new system never ends, and ignores SIGTERM.
{
  systemd.services.fault = {
    wantedBy = ["multi-user.target"];
    serviceConfig = {
      Type = "oneshot";
      ExecStart = "/usr/bin/sh -c 'trap : TERM; while :; do sleep 1; done'";
    };
  };
}
