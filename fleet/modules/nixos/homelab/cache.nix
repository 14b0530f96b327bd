# The fleet's cache server: a mirror that keeps what it fetched from upstream, and the machine's own store, signed.
{
  config,
  lib,
  pkgs,
  ...
}: let
  inherit (lib) mkDefault mkEnableOption mkIf mkMerge mkOption types;
  cfg = config.homelab.cache;
  hostName = types.strMatching "[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?";
  mirror = cfg.mirrorHost != null;
  local = cfg.localHost != null;
  rolling = config.homelab.ci.rollingFlakeUpdate;

  upstream = config.homelab.nixCaches.upstream.url;
  # Named locations and patterns accept a server without a path.
  server = builtins.match "(https?://([^/]+))/?" upstream;
  upstreamHost = lib.last server;
  inherit (config.services.nginx) user group;

  # Requests to upstream. The certificate is checked; the content is signed as well.
  fetch = ''
    proxy_pass ${lib.head server};
    proxy_set_header Host ${upstreamHost};
    proxy_ssl_server_name on;
    proxy_ssl_name ${upstreamHost};
    proxy_ssl_verify on;
    proxy_ssl_verify_depth 3;
    proxy_ssl_trusted_certificate /etc/ssl/certs/ca-certificates.crt;
  '';
  # Served from the disk; fetched and stored if missing. Neither ever changes upstream.
  kept = kind: {
    root = mkDefault "${cfg.mirrorCacheRoot}/${kind}";
    tryFiles = mkDefault "$uri @fetch-${kind}";
  };
  fetched = kind: {
    root = mkDefault "${cfg.mirrorCacheRoot}/${kind}";
    recommendedProxySettings = mkDefault false;
    extraConfig = mkDefault ''
      ${fetch}
      proxy_store on;
      proxy_store_access user:rw group:r all:r;
      proxy_temp_path ${cfg.mirrorCacheRoot}/temp;
    '';
  };
  directories = map (part: "${cfg.mirrorCacheRoot}${part}") ["" "/nar" "/narinfo" "/temp"];
in {
  options.homelab.cache = {
    enable = mkEnableOption "the fleet's binary cache server";
    mirrorHost = mkOption {
      type = types.nullOr hostName;
      default = null;
      example = "nix-mirror.example.org";
      description = "The name under which upstream (homelab.nixCaches.upstream) is mirrored; null: no mirror.";
    };
    mirrorCacheRoot = mkOption {
      type = types.strMatching "/[A-Za-z0-9/_.-]+";
      default = "/var/cache/nix-mirror";
      description = "The directory of the mirror's files.";
    };
    mirrorRetentionDays = mkOption {
      type = types.ints.unsigned;
      default = 45;
      description = "Files of the mirror that were not requested for this many days are deleted; 0: keep everything.";
    };
    localHost = mkOption {
      type = types.nullOr hostName;
      default = null;
      example = "nixcache.example.org";
      description = "The name under which the machine's own store is served; null: do not serve it.";
    };
    nixServeSecretKeyFile = mkOption {
      type = types.nullOr types.str;
      default = null;
      example = lib.literalExpression "config.sops.secrets.nix_serve_key.path";
      description = "A file on the machine with the private key that signs the served paths (nix key generate-secret).";
    };
    loopbackSelf = mkOption {
      type = types.bool;
      default = true;
      description = "Whether the machine resolves these names to its loopback interface, whatever the LAN's DNS answers.";
    };
  };

  config = mkIf cfg.enable (mkMerge [
    {
      assertions = [
        {
          assertion = mirror || local;
          message = "homelab.cache serves nothing: set mirrorHost, localHost or both, or enable = false.";
        }
        {
          assertion = mirror -> server != null;
          message = "homelab.cache.mirrorHost: ${upstream} cannot be mirrored; homelab.nixCaches.upstream.url must be http(s)://HOST.";
        }
        {
          assertion = local -> cfg.nixServeSecretKeyFile != null;
          message = "homelab.cache.localHost: clients refuse unsigned paths; set nixServeSecretKeyFile to the path of the key, for example from sops-nix.";
        }
        {
          assertion = !lib.hasPrefix builtins.storeDir (toString cfg.nixServeSecretKeyFile);
          message = "homelab.cache.nixServeSecretKeyFile is in the Nix store, which every user can read: name a file on the machine, for example from sops-nix.";
        }
        {
          assertion = mirror -> cfg.mirrorHost != cfg.localHost;
          message = "homelab.cache: mirrorHost and localHost must be two different names.";
        }
      ];
      homelab.nginx.enable = mkDefault true;
      networking.hosts = mkIf cfg.loopbackSelf (lib.genAttrs ["127.0.0.1" "::1"] (_: lib.optional mirror cfg.mirrorHost ++ lib.optional local cfg.localHost));
    }

    (mkIf local {
      services.nix-serve = {
        enable = mkDefault true;
        bindAddress = mkDefault "127.0.0.1";
        port = mkDefault 5000;
        secretKeyFile = mkDefault cfg.nixServeSecretKeyFile;
      };
      security.acme.certs.${cfg.localHost} = {};
      services.nginx.virtualHosts.${cfg.localHost} = {
        forceSSL = mkDefault true;
        useACMEHost = mkDefault cfg.localHost;
        # What the rolling update publishes comes first: the pointer to a machine's system, and the system. All else is in
        # the store.
        root = mkIf rolling.enable (mkDefault rolling.cacheDir);
        locations =
          {
            ${
              if rolling.enable
              then "@store"
              else "/"
            }.proxyPass =
              mkDefault "http://127.0.0.1:${toString config.services.nix-serve.port}";
          }
          // lib.optionalAttrs rolling.enable {
            "/".tryFiles = mkDefault "$uri @store";
            "/systems/".extraConfig = mkDefault "add_header Cache-Control no-store;";
          };
      };
    })

    (mkIf mirror {
      security.acme.certs.${cfg.mirrorHost} = {};
      services.nginx.virtualHosts.${cfg.mirrorHost} = {
        forceSSL = mkDefault true;
        useACMEHost = mkDefault cfg.mirrorHost;
        locations = {
          "= /nix-cache-info" = {
            recommendedProxySettings = mkDefault false;
            extraConfig = mkDefault fetch;
          };
          "~ ^/[a-z0-9]+\\.narinfo$" = kept "narinfo";
          "~ ^/nar/[A-Za-z0-9._-]+$" = kept "nar";
          "@fetch-narinfo" = fetched "narinfo";
          "@fetch-nar" = fetched "nar";
          "/".return = mkDefault "404";
        };
      };
      systemd.tmpfiles.rules = map (path: "d ${path} 0750 ${user} ${group} -") directories;
      systemd.services.nginx.serviceConfig.ReadWritePaths = [cfg.mirrorCacheRoot];
      systemd.services.nix-mirror-prune = mkIf (cfg.mirrorRetentionDays > 0) {
        description = "Delete unused files of the mirror";
        startAt = mkDefault "03:15";
        path = [pkgs.findutils];
        # Without access times, a file's age counts from when it was fetched.
        script = ''
          find ${cfg.mirrorCacheRoot}/nar ${cfg.mirrorCacheRoot}/narinfo -xdev -type f \
            -atime +${toString cfg.mirrorRetentionDays} -mtime +${toString cfg.mirrorRetentionDays} -delete
        '';
        serviceConfig = {
          Type = "oneshot";
          User = user;
          Group = group;
          Nice = 10;
          ProtectSystem = "strict";
          ProtectHome = true;
          PrivateTmp = true;
          NoNewPrivileges = true;
          ReadWritePaths = [cfg.mirrorCacheRoot];
        };
      };
    })
  ]);
}
