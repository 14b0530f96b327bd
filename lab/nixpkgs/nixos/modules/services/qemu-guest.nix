# The guest agent: the lab answers its calls as long as a process of that name runs in the machine.
{
  config,
  lib,
  pkgs,
  ...
}: {
  options.services.qemuGuest = {
    enable = lib.mkEnableOption "the QEMU guest agent";
    package = lib.mkPackageOption pkgs "qemu" {};
  };
  config = lib.mkIf config.services.qemuGuest.enable {
    systemd.services.qemu-guest-agent = {
      description = "Run the QEMU Guest Agent";
      wantedBy = ["multi-user.target"];
      serviceConfig = {
        ExecStart = "/usr/bin/qemu-ga --statedir /run/qemu-ga";
        RuntimeDirectory = "qemu-ga";
        Restart = "always";
        RestartSec = 0;
      };
    };
  };
}
