# The running session over the network, by WayVNC. Only this machine reaches it unless it is said otherwise: come by
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
  # A path as text: a path literal would copy the key into the Nix store, where everybody reads it.
  file = types.strMatching "/.*" // {description = "absolute path, as a string";};
in {
  options.homelab.remote-desktop = {
    enable = mkEnableOption "the graphical session over VNC, by WayVNC, started with it";
    address = mkOption {
      type = types.str;
      default = "127.0.0.1";
      description = "The address that it listens on. Another than a loopback one needs a certificate and a login.";
    };
    port = mkOption {
      type = types.port;
      default = 5900;
      description = "The port that it listens on.";
    };
    certificateFile = mkOption {
      type = types.nullOr file;
      default = null;
      description = "The TLS certificate. With it, who connects logs in as on the machine itself (PAM).";
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
          message = "homelab.remote-desktop.address is ${cfg.address}, where everybody on the network would have the session: set certificateFile and privateKeyFile beside it, or leave the address 127.0.0.1 and come by ssh -L";
        }
        {
          assertion = (cfg.certificateFile == null) == (cfg.privateKeyFile == null);
          message = "homelab.remote-desktop: certificateFile and privateKeyFile go together; set both, or none";
        }
        {
          assertion = cfg.privateKeyFile == null || !lib.hasPrefix builtins.storeDir cfg.privateKeyFile;
          message = "homelab.remote-desktop.privateKeyFile is in the Nix store, where everybody reads it: name a file outside, such as a secret's path";
        }
        {
          assertion = cfg.certificateFile == null || nixos == null || (nixos.security.pam.services.wayvnc or null) != null || (nixos.programs.wayvnc.enable or false);
          message = "homelab.remote-desktop: nobody could log in to WayVNC on this host: set security.pam.services.wayvnc = { }; in its configuration.nix";
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
