# Variants of a system, each of them a complete system inside it.
{
  config,
  lib,
  extendModules,
  ...
}: let
  variant = child:
    (extendModules {
      modules = [
        child.configuration
        {specialisation = lib.mkOverride 0 {};}
      ];
    })
    .config
    .system
    .build
    .toplevel;
in {
  options.specialisation = lib.mkOption {
    default = {};
    type = lib.types.attrsOf (lib.types.submodule {
      options.configuration = lib.mkOption {
        default = {};
        type = lib.types.deferredModule;
      };
    });
  };
  config.system.systemBuilderCommands = ''
    mkdir $out/specialisation
    ${lib.concatStrings (lib.mapAttrsToList (name: child: "ln -s ${variant child} $out/specialisation/${name}\n") config.specialisation)}
  '';
}
