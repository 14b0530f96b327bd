# Whether a home has a display. What needs one makes nothing without, so that a home can be shared by desktops and
# servers; who switched such a thing on is told.
{
  config,
  lib,
  specialArgs,
  ...
}: let
  inherit (lib) mkOption types;
  cfg = config.homelab.display;
  wanted = lib.attrNames (lib.filterAttrs (_: on: on) cfg.wanted);
in {
  options.homelab = {
    display = {
      enable = mkOption {
        type = types.bool;
        default = false;
        example = true;
        description = ''
          Whether this home has a graphical session. Where it has none, the modules that need one make nothing, whatever
          their own `enable` says.
        '';
      };
      wanted = mkOption {
        type = types.attrsOf types.bool;
        default = {};
        internal = true;
        description = "The modules that need a display, and whether they are switched on.";
      };
    };

    nixos = mkOption {
      type = types.nullOr types.raw;
      # A special argument where Home Manager is part of NixOS; elsewhere nobody may give it.
      default = specialArgs.osConfig or config._module.args.osConfig or null;
      defaultText = lib.literalExpression "osConfig";
      internal = true;
      description = "The configuration of the NixOS host that this home is part of; null where the system is another.";
    };
  };

  config.warnings =
    lib.optional (!cfg.enable && wanted != [])
    "${lib.concatMapStringsSep ", " (name: "homelab.${name}.enable") wanted}: nothing comes of it, because homelab.display.enable is false. Set homelab.display.enable = true where there is a display, or switch it off.";
}
