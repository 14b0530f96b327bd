# What unprivileged users and clocks can make fail fails: a connection, a transient unit, a timer job.
{
  systemd.timers.clockwork = {
    wantedBy = ["timers.target"];
    timerConfig.OnActiveSec = 0;
  };
  systemd.services.clockwork.serviceConfig = {
    Type = "oneshot";
    ExecStart = "/usr/bin/false";
  };
  systemd.sockets.caller = {
    wantedBy = ["sockets.target"];
    listenStreams = ["127.0.0.1:7777"];
    socketConfig.Accept = true;
  };
  systemd.services."caller@".serviceConfig.ExecStart = "/usr/bin/false";
  systemd.services.passer-by = {
    wantedBy = ["multi-user.target"];
    after = ["caller.socket"];
    wants = ["caller.socket"];
    serviceConfig = {
      Type = "oneshot";
      RemainAfterExit = true;
      ExecStart = "/usr/bin/bash -c 'systemd-run --quiet --unit=transient /usr/bin/false; exec 3<>/dev/tcp/127.0.0.1/7777; sleep 0.5'";
    };
  };
}
