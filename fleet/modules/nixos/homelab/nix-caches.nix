# The binary caches of a machine: their order, and whose signatures are accepted.
{
  config,
  lib,
  ...
}: let
  inherit (lib) mkDefault mkEnableOption mkIf mkOption optional types;
  cfg = config.homelab.nixCaches;

  # NixOS itself asks cache.nixos.org last, with the priority that the cache announces; only others are added.
  nixos = {
    url = "https://cache.nixos.org";
    priority = 40;
    publicKey = "cache.nixos.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=";
  };

  key = types.strMatching "[^: ]+:[A-Za-z0-9+/]{43}=";
  url = types.strMatching "(https?|s3|file|ssh|ssh-ng)://[^ ]+";
  priority = default: who:
    mkOption {
      type = types.ints.positive;
      inherit default;
      description = "The cache's priority for a machine ${who}; the lowest number is asked first.";
    };
  cache = what: internal: external: {
    url = mkOption {
      type = types.nullOr url;
      default = null;
      description = "The URL of ${what}.";
    };
    priorityInternal = priority internal "in the LAN";
    priorityExternal = priority external "elsewhere";
  };
  enabled = from: what: default: text:
    mkOption {
      type = types.bool;
      inherit default;
      defaultText = lib.literalMD text;
      description = "Whether ${what} is asked${from}.";
    };

  prioritised = at: number: "${at}${
    if lib.hasInfix "?" at
    then "&"
    else "?"
  }priority=${toString number}";
  ask = one: at:
    prioritised at (
      if cfg.profile == "external"
      then one.priorityExternal
      else one.priorityInternal
    );
  # The server of the local cache has everything in its own store.
  nixServe = cfg.nixServe.enable && cfg.profile != "server";
  upstream = cfg.upstream.url != nixos.url || cfg.upstream.priority != nixos.priority;
in {
  options.homelab.nixCaches = {
    enable = mkEnableOption "the fleet's binary caches";
    profile = mkOption {
      type = types.enum ["internal" "external" "server"];
      default = "internal";
      description = ''
        Which priorities apply: `internal` for a machine in the LAN of the caches, `external` for one elsewhere,
        `server` for the one that serves them: it is in the LAN and does not use its own cache.
      '';
    };
    nixServe =
      {
        enable = enabled ", and its signatures are taken" "the cache of what the fleet builds" (cfg.nixServe.url != null) "on when `url` is set";
        publicKey = mkOption {
          type = types.nullOr key;
          default = null;
          example = "cache.example.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=";
          description = "The public key that it signs with.";
        };
      }
      // cache "the cache of what the fleet builds" 10 20;
    mirror =
      {
        enable = enabled "; what it serves is signed by upstream" "the mirror of upstream in the LAN" (cfg.mirror.url != null) "on when `url` is set";
      }
      // cache "the mirror of upstream in the LAN" 20 30;
    hyprland = {
      enable = mkEnableOption "the cache of the Hyprland project";
      publicKey = mkOption {
        type = key;
        default = "hyprland.cachix.org-1:a7pgxzMz7+chwVL3/pzj6jIBMioiJM7ypFP8PwtkuGc=";
        description = "The public key that it signs with.";
      };
      priorityInternal = priority 15 "in the LAN";
      priorityExternal = priority 15 "elsewhere";
    };
    cachix = {
      enable = enabled ", and its signatures are taken" "a cache at cachix.org" (cfg.cachix.name != null) "on when `name` is set";
      name = mkOption {
        type = types.nullOr (types.strMatching "[a-z0-9-]+");
        default = null;
        description = "The name of the cache: NAME.cachix.org.";
      };
      publicKey = mkOption {
        type = types.nullOr key;
        default = null;
        description = "The public key that it signs with.";
      };
      # the last: only for paths that no other cache has
      priorityInternal = priority 50 "in the LAN";
      priorityExternal = priority 50 "elsewhere";
    };
    upstream = {
      url = mkOption {
        type = url;
        default = nixos.url;
        description = "The public cache. NixOS' own remains the last resort if this is changed.";
      };
      publicKey = mkOption {
        type = key;
        default = nixos.publicKey;
        description = "The public key that it signs with.";
      };
      priority = priority nixos.priority "anywhere";
    };
    narinfo = {
      positiveTtl = mkOption {
        type = types.ints.unsigned;
        default = 300;
        description = "For how many seconds a cached positive lookup is valid.";
      };
      negativeTtl = mkOption {
        type = types.ints.unsigned;
        default = 10;
        description = "For how many seconds a cached negative lookup is valid; short, so that new builds are found soon.";
      };
    };
  };

  config = mkIf cfg.enable {
    assertions = [
      {
        assertion = cfg.nixServe.enable -> cfg.nixServe.url != null && cfg.nixServe.publicKey != null;
        message = "homelab.nixCaches.nixServe: a cache needs a url and a publicKey (nix key convert-secret-to-public prints it): set both, or nixServe.enable = false.";
      }
      {
        assertion = cfg.mirror.enable -> cfg.mirror.url != null;
        message = "homelab.nixCaches.mirror: set its url, or mirror.enable = false.";
      }
      {
        assertion = cfg.cachix.enable -> cfg.cachix.name != null && cfg.cachix.publicKey != null;
        message = "homelab.nixCaches.cachix: a cache needs a name and a publicKey (cachix.org shows it): set both, or cachix.enable = false.";
      }
    ];
    # Without mkForce: what a host adds is used as well.
    nix.settings = {
      substituters =
        optional (nixServe && cfg.nixServe.url != null) (ask cfg.nixServe cfg.nixServe.url)
        ++ optional (cfg.mirror.enable && cfg.mirror.url != null) (ask cfg.mirror cfg.mirror.url)
        ++ optional cfg.hyprland.enable (ask cfg.hyprland "https://hyprland.cachix.org")
        ++ optional upstream (prioritised cfg.upstream.url cfg.upstream.priority)
        ++ optional (cfg.cachix.enable && cfg.cachix.name != null) (ask cfg.cachix "https://${cfg.cachix.name}.cachix.org");
      trusted-public-keys =
        optional (cfg.nixServe.enable && cfg.nixServe.publicKey != null) cfg.nixServe.publicKey
        ++ optional cfg.hyprland.enable cfg.hyprland.publicKey
        ++ optional (cfg.upstream.publicKey != nixos.publicKey) cfg.upstream.publicKey
        ++ optional (cfg.cachix.enable && cfg.cachix.publicKey != null) cfg.cachix.publicKey;
      narinfo-cache-positive-ttl = mkDefault cfg.narinfo.positiveTtl;
      narinfo-cache-negative-ttl = mkDefault cfg.narinfo.negativeTtl;
      # An unreachable cache is skipped quickly, and the missing paths are built.
      connect-timeout = mkDefault 5;
      fallback = mkDefault true;
    };
  };
}
