# Whether a home has a display. Without one, modules that need it produce nothing, so desktops and servers can share a
# home; a module that was enabled explicitly causes a warning.
{
  config,
  lib,
  specialArgs,
  ...
}: let
  inherit (lib) mkOption types;
  cfg = config.homelab.display;
  enabled = lib.attrNames (lib.filterAttrs (_: on: on) cfg.wanted);
in {
  options.homelab = {
    display = {
      enable = mkOption {
        type = types.bool;
        default = false;
        example = true;
        description = ''
          Whether this home has a graphical session. Without one, the modules that need it produce nothing, even when they
          are enabled.
        '';
      };
      wanted = mkOption {
        type = types.attrsOf types.bool;
        default = {};
        internal = true;
        description = "The modules that need a display, and whether they are enabled.";
      };
    };

    nixos = mkOption {
      type = types.nullOr types.raw;
      # A special argument where Home Manager is part of NixOS; elsewhere it may be missing.
      default = specialArgs.osConfig or config._module.args.osConfig or null;
      defaultText = lib.literalExpression "osConfig";
      internal = true;
      description = "The configuration of the NixOS host that this home is part of; null on other systems.";
    };
  };

  config.warnings =
    lib.optional (!cfg.enable && enabled != [])
    "${lib.concatMapStringsSep ", " (name: "homelab.${name}.enable") enabled}: has no effect, because homelab.display.enable is false. Set homelab.display.enable = true if there is a display, or disable it.";
}
