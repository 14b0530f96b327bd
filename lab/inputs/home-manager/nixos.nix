# Homes as part of a NixOS machine: a service of its user activates each, as upstream does.
{
  config,
  lib,
  pkgs,
  ...
}: let
  inherit (lib) mkOption types;
  cfg = config.home-manager;
  home = name: module:
    (import ./eval.nix {
      inherit lib pkgs;
      extraSpecialArgs =
        {
          osConfig = config;
          nixosConfig = config;
        }
        // cfg.extraSpecialArgs;
      modules =
        cfg.sharedModules
        ++ [
          module
          {
            home.username = lib.mkDefault config.users.users.${name}.name;
            home.homeDirectory = lib.mkDefault config.users.users.${name}.home;
          }
        ];
    })
    .config;
in {
  options.home-manager = {
    users = mkOption {
      type = types.lazyAttrsOf types.deferredModule;
      default = {};
      # reads like the evaluated homes
      apply = lib.mapAttrs home;
    };
    sharedModules = mkOption {
      type = types.listOf types.raw;
      default = [];
    };
    extraSpecialArgs = mkOption {
      type = types.attrs;
      default = {};
    };
    useGlobalPkgs = mkOption {
      type = types.bool;
      default = false;
    };
    useUserPackages = mkOption {
      type = types.bool;
      default = false;
    };
    backupFileExtension = mkOption {
      type = types.nullOr types.str;
      default = null;
    };
    verbose = mkOption {
      type = types.bool;
      default = false;
    };
  };
  _known = [(lib.knownOptions "home-manager-nixos")];
  config = {
    users.users = lib.mkIf cfg.useUserPackages (lib.mapAttrs (_: evaluated: {packages = [evaluated.home.path];}) cfg.users);
    systemd.services = lib.mapAttrs' (name: evaluated:
      lib.nameValuePair "home-manager-${name}" {
        description = "Home Manager environment for ${evaluated.home.username}";
        wantedBy = ["multi-user.target"];
        after = ["nix-daemon.socket"];
        wants = ["nix-daemon.socket"];
        unitConfig.RequiresMountsFor = evaluated.home.homeDirectory;
        stopIfChanged = false;
        serviceConfig = {
          User = evaluated.home.username;
          Type = "oneshot";
          RemainAfterExit = true;
          TimeoutStartSec = "5m";
          SyslogIdentifier = "hm-activate-${evaluated.home.username}";
          ExecStart = "${evaluated.home.activationPackage}/activate";
        };
        environment.NIX_REMOTE = "daemon";
      })
    cfg.users;
  };
}
