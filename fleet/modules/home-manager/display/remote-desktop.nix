# The running session over the network, with WayVNC. By default only this machine can connect: use
# `ssh -L 5900:127.0.0.1:5900 HOST`.
{
  config,
  lib,
  ...
}: let
  inherit (lib) mkDefault mkEnableOption mkIf mkOption types;
  inherit (config.homelab) nixos;
  cfg = config.homelab.remote-desktop;
  loopback = lib.elem cfg.address ["127.0.0.1" "::1" "localhost"];
  # A path as text: a path literal would copy the key into the Nix store, which every user can read.
  file = types.strMatching "/.*" // {description = "absolute path, as a string";};
in {
  options.homelab.remote-desktop = {
    enable = mkEnableOption "the graphical session over VNC, by WayVNC, started with it";
    address = mkOption {
      type = types.str;
      default = "127.0.0.1";
      description = "The address that it listens on. Any address other than loopback needs a certificate and a login.";
    };
    port = mkOption {
      type = types.port;
      default = 5900;
      description = "The port that it listens on.";
    };
    certificateFile = mkOption {
      type = types.nullOr file;
      default = null;
      description = "The TLS certificate. With it, clients log in with the machine's passwords (PAM).";
    };
    privateKeyFile = mkOption {
      type = types.nullOr file;
      default = null;
      example = "/run/secrets/wayvnc_key";
      description = "The private key of the certificate, outside of the Nix store.";
    };
  };

  config = lib.mkMerge [
    {homelab.display.wanted.remote-desktop = cfg.enable;}
    (mkIf (cfg.enable && config.homelab.display.enable) {
      assertions = [
        {
          assertion = loopback || (cfg.certificateFile != null && cfg.privateKeyFile != null);
          message = "homelab.remote-desktop.address is ${cfg.address}, which gives everybody on the network the session: set certificateFile and privateKeyFile, or keep the address 127.0.0.1 and connect with ssh -L";
        }
        {
          assertion = (cfg.certificateFile == null) == (cfg.privateKeyFile == null);
          message = "homelab.remote-desktop: set both certificateFile and privateKeyFile, or neither";
        }
        {
          assertion = cfg.privateKeyFile == null || !lib.hasPrefix builtins.storeDir cfg.privateKeyFile;
          message = "homelab.remote-desktop.privateKeyFile is in the Nix store, which every user can read: name a file outside of it, such as a secret's path";
        }
        {
          assertion = cfg.certificateFile == null || nixos == null || (nixos.security.pam.services.wayvnc or null) != null || (nixos.programs.wayvnc.enable or false);
          message = "homelab.remote-desktop: nobody can log in to WayVNC on this host: set security.pam.services.wayvnc = { }; in its configuration.nix";
        }
      ];

      services.wayvnc = {
        enable = true;
        autoStart = mkDefault true;
        settings =
          {inherit (cfg) address port;}
          // lib.optionalAttrs (cfg.certificateFile != null) {
            enable_auth = true;
            enable_pam = true;
            certificate_file = cfg.certificateFile;
            private_key_file = cfg.privateKeyFile;
          };
      };
    })
  ];
}
