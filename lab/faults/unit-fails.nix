# A new unit fails when it is started: switch-to-configuration ends with 4.
{
  systemd.services.fault = {
    wantedBy = ["multi-user.target"];
    serviceConfig = {
      Type = "oneshot";
      ExecStart = "/usr/bin/sh -c 'echo the fault: a unit that fails; exit 7'";
    };
  };
}
