# The web server: certificates by DNS, so that hosts in a LAN have valid ones too.
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
    enable = mkEnableOption "nginx, with ACME certificates through Cloudflare's DNS";
    acmeEmail = mkOption {
      type = types.nullOr (types.strMatching "[^@ ]+@[^@ ]+");
      default = null;
      example = "acme@example.org";
      description = "The contact address for the certificate authority; setting it accepts the authority's terms.";
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
          message = "homelab.nginx.acmeEmail: the certificate authority needs a contact address; set it.";
        }
        {
          assertion = cfg.cloudflareSopsFile != null;
          message = "homelab.nginx.cloudflareSopsFile: certificates are requested through DNS; name a dotenv file, encrypted with sops, that contains CLOUDFLARE_DNS_API_TOKEN.";
        }
        {
          assertion = options ? sops;
          message = "homelab.nginx: sops-nix decrypts its secret; import sops-nix' nixosModules.sops.";
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
        # only the web server may read the certificates
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
