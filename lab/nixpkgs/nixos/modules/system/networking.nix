# Names and networks: systemd-networkd, DHCP on every wired interface by default.
{
  config,
  lib,
  ...
}: let
  inherit (lib) mkOption types;
  cfg = config.networking;
  off = mkOption {
    type = types.bool;
    default = false;
  };
  ports = mkOption {
    type = types.listOf types.port;
    default = [];
  };
  ranges = mkOption {
    type = types.listOf (types.attrsOf types.port);
    default = [];
  };
  set = mkOption {
    type = types.attrsOf types.anything;
    default = {};
  };
  network = types.submodule {
    freeformType = types.attrsOf types.anything;
    options = {
      enable = mkOption {
        type = types.bool;
        default = true;
      };
      matchConfig = set;
      linkConfig = set;
      networkConfig = set;
      dhcpV4Config = set;
      dhcpV6Config = set;
      address = mkOption {
        type = types.listOf types.str;
        default = [];
      };
      gateway = mkOption {
        type = types.listOf types.str;
        default = [];
      };
      dns = mkOption {
        type = types.listOf types.str;
        default = [];
      };
      name = mkOption {
        type = types.nullOr types.str;
        default = null;
      };
      DHCP = mkOption {
        type = types.nullOr types.str;
        default = null;
      };
      routes = mkOption {
        type = types.listOf types.anything;
        default = [];
      };
    };
  };
  yesNo = v:
    if v == true
    then "yes"
    else if v == false
    then "no"
    else toString v;
  section = name: values: let
    given = lib.filterAttrs (_: v: v != null && v != []) values;
  in
    lib.optionalString (given != {})
    ("[${name}]\n" + lib.concatStrings (lib.mapAttrsToList (k: v: lib.concatMapStrings (one: "${k}=${yesNo one}\n") (lib.toList v)) given));
  networkText = n:
    section "Match" (n.matchConfig // lib.optionalAttrs (n.name != null) {Name = n.name;})
    + section "Link" n.linkConfig
    + section "Network" (n.networkConfig
      // {
        Address = n.address;
        Gateway = n.gateway;
        DNS = n.dns;
      }
      // lib.optionalAttrs (n.DHCP != null) {inherit (n) DHCP;})
    + section "DHCPv4" n.dhcpV4Config
    + section "DHCPv6" n.dhcpV6Config
    + lib.concatMapStrings (section "Route") n.routes;
in {
  options = {
    networking = {
      hostName = mkOption {
        type = types.strMatching "$|[[:alnum:]]([[:alnum:]_-]{0,61}[[:alnum:]])?";
        default = "nixos";
      };
      hostId = mkOption {
        type = types.nullOr types.str;
        default = null;
      };
      domain = mkOption {
        type = types.nullOr types.str;
        default = null;
      };
      fqdn = mkOption {
        type = types.str;
        default = cfg.hostName + lib.optionalString (cfg.domain != null) ".${cfg.domain}";
      };
      hosts = mkOption {
        type = types.attrsOf (types.listOf types.str);
        default = {};
      };
      extraHosts = mkOption {
        type = types.lines;
        default = "";
      };
      useDHCP = mkOption {
        type = types.bool;
        default = true;
      };
      useNetworkd = off;
      dhcpcd.enable = mkOption {
        type = types.bool;
        default = true;
      };
      usePredictableInterfaceNames = mkOption {
        type = types.nullOr types.bool;
        default = true;
      };
      enableIPv6 = mkOption {
        type = types.bool;
        default = true;
      };
      nameservers = mkOption {
        type = types.listOf types.str;
        default = [];
      };
      search = mkOption {
        type = types.listOf types.str;
        default = [];
      };
      defaultGateway = mkOption {
        type = types.nullOr types.anything;
        default = null;
      };
      interfaces = mkOption {
        default = {};
        type = types.attrsOf (types.submodule {
          freeformType = types.attrsOf types.anything;
          options = {
            useDHCP = mkOption {
              type = types.nullOr types.bool;
              default = null;
            };
            mtu = mkOption {
              type = types.nullOr types.int;
              default = null;
            };
            ipv4.addresses = mkOption {
              type = types.listOf types.anything;
              default = [];
            };
          };
        });
      };
      wireless.enable = off;
      networkmanager = {
        enable = off;
        plugins = mkOption {
          type = types.listOf types.anything;
          default = [];
        };
      };
      firewall = {
        enable = mkOption {
          type = types.bool;
          default = true;
        };
        allowPing = mkOption {
          type = types.bool;
          default = true;
        };
        allowedTCPPorts = ports;
        allowedUDPPorts = ports;
        allowedTCPPortRanges = ranges;
        allowedUDPPortRanges = ranges;
        trustedInterfaces = mkOption {
          type = types.listOf types.str;
          default = [];
        };
        interfaces = set;
        checkReversePath = mkOption {
          type = types.either types.bool types.str;
          default = true;
        };
        extraCommands = mkOption {
          type = types.lines;
          default = "";
        };
      };
      nftables.enable = off;
      timeServers = mkOption {
        type = types.listOf types.str;
        default = [];
      };
    };
    systemd.network = {
      enable = off;
      networks = mkOption {
        type = types.attrsOf network;
        default = {};
      };
      netdevs = set;
      links = set;
      wait-online = {
        enable = mkOption {
          type = types.bool;
          default = true;
        };
        anyInterface = off;
      };
    };
  };

  config = {
    systemd.network.networks."99-ethernet-default-dhcp" = lib.mkIf cfg.useDHCP {
      # the lab's interfaces are virtual, and Type= calls these ether as well
      matchConfig.Type = lib.mkDefault "ether";
      DHCP = lib.mkDefault "yes";
      networkConfig = {
        IPv6AcceptRA = lib.mkDefault true;
        LinkLocalAddressing = lib.mkDefault "ipv6";
      };
      dhcpV4Config.ClientIdentifier = lib.mkDefault "mac";
      linkConfig = lib.mkIf (cfg.interfaces ? eth0 && cfg.interfaces.eth0.mtu != null) {MTUBytes = cfg.interfaces.eth0.mtu;};
    };
    systemd.services.systemd-networkd = {
      wantedBy = ["multi-user.target"];
      stopIfChanged = false;
      restartTriggers = lib.mapAttrsToList (_: networkText) config.systemd.network.networks;
      path = [];
    };
    systemd.services.dbus.wantedBy = ["multi-user.target"];
    environment.etc =
      lib.mapAttrs' (name: n: lib.nameValuePair "systemd/network/${name}.network" {text = networkText n;}) (lib.filterAttrs (_: n: n.enable) config.systemd.network.networks)
      // {
        hostname.text = cfg.hostName + "\n";
        hosts.text =
          ''
            127.0.0.1 localhost
            ::1 localhost
            127.0.0.2 ${lib.optionalString (cfg.domain != null) "${cfg.fqdn} "}${cfg.hostName}
          ''
          + lib.concatStrings (lib.mapAttrsToList (ip: names: "${ip} ${toString names}\n") cfg.hosts)
          + cfg.extraHosts;
        "nsswitch.conf".text = ''
          passwd: files
          group: files
          shadow: files
          hosts: files dns
          networks: files
          services: files
          protocols: files
        '';
        "resolv.conf" = lib.mkIf (cfg.nameservers != []) {text = lib.concatMapStrings (ip: "nameserver ${ip}\n") cfg.nameservers;};
      };
  };
}
