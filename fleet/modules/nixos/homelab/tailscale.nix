# The mesh between all machines; a machine in the LAN is reached through the LAN.
{
  config,
  lib,
  pkgs,
  ...
}: let
  inherit (lib) mkDefault mkEnableOption mkIf mkOption types;
  cfg = config.homelab.tailscale;
  interface = config.services.tailscale.interfaceName;
in {
  options.homelab.tailscale = {
    enable = mkEnableOption "the fleet's Tailscale mesh";
    tpmOverride = mkOption {
      type = types.bool;
      default = false;
      description = ''
        Keep the node's key out of the TPM. For a disk that boots both on bare metal and in a VM: a key that one TPM sealed
        cannot be opened by the other.
      '';
    };
    lanSubnets = mkOption {
      type = types.listOf (types.strMatching "[0-9]+(\\.[0-9]+){3}/[0-9]+");
      default = [];
      example = ["192.168.1.0/24"];
      description = ''
        IPv4 networks that a machine of the mesh announces. A machine inside such a network uses it directly instead of the
        mesh; others go through the mesh.
      '';
    };
  };

  config = mkIf cfg.enable {
    services.tailscale = {
      enable = mkDefault true;
      useRoutingFeatures = mkDefault "both";
      openFirewall = mkDefault true;
    };
    networking.firewall.trustedInterfaces = [interface];
    systemd.services.tailscaled.environment = mkIf cfg.tpmOverride {TS_NO_TPM = mkDefault "true";};

    # Tailscale's own rules begin at 5210. The main table is consulted before them, but never for its default route: it
    # answers only where the network is attached, so a laptop's location need not be tracked.
    systemd.services.homelab-lan-first = mkIf (cfg.lanSubnets != []) {
      description = "The LAN's routes before the mesh's";
      after = ["network-pre.target"];
      before = ["tailscaled.service"];
      wantedBy = ["multi-user.target"];
      path = [pkgs.iproute2];
      serviceConfig = {
        Type = "oneshot";
        RemainAfterExit = true;
      };
      script =
        lib.concatMapStrings (subnet: ''
          ip -4 rule del to ${subnet} priority 2500 2>/dev/null || true
          ip -4 rule add to ${subnet} priority 2500 lookup main suppress_prefixlength 0
        '')
        cfg.lanSubnets;
      preStop = lib.concatMapStrings (subnet: "ip -4 rule del to ${subnet} priority 2500 || true\n") cfg.lanSubnets;
    };
  };
}
