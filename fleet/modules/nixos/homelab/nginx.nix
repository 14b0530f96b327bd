# The web server's ground: certificates by DNS, so that a host in a LAN has real ones too.
{
  config,
  lib,
  options,
  ...
}: let
  inherit (lib) mkDefault mkEnableOption mkIf mkMerge mkOption types;
  cfg = config.homelab.nginx;
in {
  options.homelab.nginx = {
    enable = mkEnableOption "nginx, with certificates from an ACME authority by DNS at Cloudflare";
    acmeEmail = mkOption {
      type = types.nullOr (types.strMatching "[^@ ]+@[^@ ]+");
      default = null;
      example = "acme@example.org";
      description = "Where the certificate authority writes to; having it set accepts its terms.";
    };
    cloudflareSopsFile = mkOption {
      type = types.nullOr types.path;
      default = null;
      example = lib.literalExpression "../../secrets/acme-cloudflare.env";
      description = "A dotenv file encrypted with sops that holds CLOUDFLARE_DNS_API_TOKEN.";
    };
  };

  config = mkIf cfg.enable (mkMerge [
    {
      assertions = [
        {
          assertion = cfg.acmeEmail != null;
          message = "homelab.nginx.acmeEmail: a certificate authority wants an address to write to; set it.";
        }
        {
          assertion = cfg.cloudflareSopsFile != null;
          message = "homelab.nginx.cloudflareSopsFile: certificates are asked for by DNS; name a dotenv file that sops has encrypted and that holds CLOUDFLARE_DNS_API_TOKEN.";
        }
        {
          assertion = options ? sops;
          message = "homelab.nginx: its secret is decrypted by sops-nix; import sops-nix' nixosModules.sops.";
        }
      ];
      networking.firewall.allowedTCPPorts = [80 443];
      services.nginx = {
        enable = mkDefault true;
        recommendedProxySettings = mkDefault true;
        recommendedTlsSettings = mkDefault true;
        recommendedGzipSettings = mkDefault true;
        recommendedOptimisation = mkDefault true;
      };
      security.acme.acceptTerms = mkDefault (cfg.acmeEmail != null);
      security.acme.defaults = {
        email = mkIf (cfg.acmeEmail != null) (mkDefault cfg.acmeEmail);
        dnsProvider = mkDefault "cloudflare";
        # certificates are read by the web server alone
        group = mkDefault config.services.nginx.group;
        reloadServices = ["nginx"];
      };
    }
    (lib.optionalAttrs (options ? sops) (mkIf (cfg.cloudflareSopsFile != null) {
      # systemd reads it as root before it starts the client
      sops.secrets."acme/cloudflare" = {
        sopsFile = cfg.cloudflareSopsFile;
        format = "dotenv";
      };
      security.acme.defaults.environmentFile = mkDefault config.sops.secrets."acme/cloudflare".path;
    }))
  ]);
}
