# The user's systemd units, each as a file, linked as [Install] requires.
{
  config,
  lib,
  pkgs,
  ...
}: let
  inherit (lib) mkOption types;
  kinds = {
    services = "service";
    sockets = "socket";
    timers = "timer";
    paths = "path";
    targets = "target";
  };
  scalar = types.oneOf [types.bool types.int types.str types.path];
  unit = types.attrsOf (types.attrsOf (types.either scalar (types.listOf scalar)));
  show = value:
    if lib.isBool value
    then lib.boolToString value
    else toString value;
  section = name: values:
    lib.optionalString (values != {}) ("[${name}]\n"
      + lib.concatStrings (lib.mapAttrsToList (key: value: lib.concatMapStrings (one: "${key}=${show one}\n") (lib.toList value)) values));
  filesOf = suffix: name: sections: let
    file = "${name}.${suffix}";
    # systemd takes a unit's name from the target of its link
    source = "${pkgs.writeTextDir file (lib.concatStringsSep "\n" (lib.mapAttrsToList section sections))}/${file}";
    wanted = variant: map (target: "${target}.${variant}/${file}");
    install = sections.Install or {};
  in
    lib.genAttrs' ([file] ++ wanted "wants" (lib.toList (install.WantedBy or [])) ++ wanted "requires" (lib.toList (install.RequiredBy or [])))
    (place: lib.nameValuePair "systemd/user/${place}" {inherit source;});
in {
  options.systemd.user =
    lib.mapAttrs (_: _:
      mkOption {
        type = types.attrsOf unit;
        default = {};
      })
    kinds
    // {
      sessionVariables = mkOption {
        type = types.attrsOf types.str;
        default = {};
      };
      startServices = mkOption {
        type = types.anything;
        default = true;
      };
    };
  config.xdg.configFile = lib.mkMerge ([
      (lib.mkIf (config.systemd.user.sessionVariables != {}) {
        "environment.d/10-home-manager.conf".text = lib.generators.toKeyValue {} config.systemd.user.sessionVariables;
      })
    ]
    ++ lib.concatLists (lib.mapAttrsToList (kind: suffix: lib.mapAttrsToList (filesOf suffix) config.systemd.user.${kind}) kinds));
}
