# The base of every other module: free form, assertions, the package set, the version.
{
  config,
  lib,
  pkgs,
  ...
}: let
  inherit (lib) mkOption types;
  cfg = config.nixpkgs;
in {
  options = {
    assertions = mkOption {
      type = types.listOf types.unspecified;
      default = [];
      internal = true;
    };
    warnings = mkOption {
      type = types.listOf types.str;
      default = [];
    };
    meta = mkOption {
      type = types.attrs;
      default = {};
      internal = true;
    };

    nixpkgs = {
      pkgs = mkOption {
        type = types.pkgs;
        default = import ../../../pkgs {
          inherit lib;
          inherit (cfg) overlays config;
          inherit (cfg) system;
        };
      };
      config = mkOption {
        type = types.attrs;
        default = {};
      };
      overlays = mkOption {
        type = types.listOf types.raw;
        default = [];
      };
      system = mkOption {
        type = types.str;
        default = cfg.hostPlatform.system;
      };
      hostPlatform = mkOption {
        type = types.coercedTo types.str (system: {inherit system;}) types.attrs;
        default = {system = "x86_64-linux";};
      };
      buildPlatform = mkOption {
        type = types.unspecified;
        default = cfg.hostPlatform;
      };
    };

    system = {
      stateVersion = mkOption {
        type = types.str;
        default = config.system.nixos.release;
      };
      configurationRevision = mkOption {
        type = types.nullOr types.str;
        default = null;
      };
      name = mkOption {
        type = types.str;
        default =
          if config.networking.hostName == ""
          then "unnamed"
          else config.networking.hostName;
      };
      nixos = {
        release = mkOption {
          type = types.str;
          default = lib.release;
          readOnly = true;
        };
        version = mkOption {
          type = types.str;
          default = "${lib.release}.lab";
          internal = true;
        };
        label = mkOption {
          type = types.str;
          default = config.system.nixos.version;
        };
        tags = mkOption {
          type = types.listOf types.str;
          default = [];
        };
        codeName = mkOption {
          type = types.str;
          default = "Lab";
          readOnly = true;
        };
        revision = mkOption {
          type = types.nullOr types.str;
          default = null;
        };
        distroId = mkOption {
          type = types.str;
          default = "nixos";
        };
        variant_id = mkOption {
          type = types.nullOr types.str;
          default = null;
        };
      };
    };
  };

  # Definitions of options without a module here are accepted; reading one that is not set is an error.
  _known = [(lib.knownOptions "nixos")];
  config = {
    _module.args = {
      inherit (cfg) pkgs;
      utils = import ../../lib/utils.nix {inherit lib config pkgs;};
    };
    environment.etc."os-release".text = ''
      ANSI_COLOR="0;38;2;126;186;228"
      BUILD_ID="${config.system.nixos.version}"
      DEFAULT_HOSTNAME=nixos
      ID=${config.system.nixos.distroId}
      NAME=NixOS
      PRETTY_NAME="NixOS ${config.system.nixos.release} (${config.system.nixos.codeName})"
      ${lib.optionalString (config.system.nixos.variant_id != null) "VARIANT_ID=${config.system.nixos.variant_id}\n"}VERSION="${config.system.nixos.release} (${config.system.nixos.codeName})"
      VERSION_CODENAME=${lib.toLower config.system.nixos.codeName}
      VERSION_ID="${config.system.nixos.release}"
    '';
    environment.etc."NIXOS".text = "";
  };
}
