# A container of Proxmox VE: without kernel and boot loader. Its name is the hypervisor's, unless it is set.
{
  config,
  lib,
  ...
}: let
  inherit (lib) mkOption types;
  cfg = config.proxmoxLXC;
  flag = default:
    mkOption {
      type = types.bool;
      inherit default;
    };
in {
  options.proxmoxLXC = {
    enable = flag true;
    privileged = flag false;
    manageNetwork = flag false;
    manageHostName = flag false;
  };
  config = lib.mkIf cfg.enable {
    boot.isContainer = true;
    networking.hostName = lib.mkIf (!cfg.manageHostName) (lib.mkForce "");
    services.openssh.enable = lib.mkDefault true;
  };
}
