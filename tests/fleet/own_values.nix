# Which of the scalars that modules define beats what a host itself says: {asked; strong; loses}, names of options:
# `strong` are no defaults, `loses` is where the host's word did not count.
# `machine` is evaluated, `base` and `modules` are module files; `skipped` are the attributes that are a module's own
# things (units, say), not anybody's option.
{
  machine,
  files,
  skipped,
}: let
  inherit (machine.pkgs) lib;
  show = lib.concatStringsSep ".";

  # Every definition with its priority: attribute sets are walked, conditions decided.
  leaves = path: value: let
    type = value._type or null;
  in
    if !lib.isAttrs value || value ? outPath
    then [
      {
        inherit path value;
        priority = 100;
      }
    ]
    else if type == "if"
    then lib.optionals value.condition (leaves path value.content)
    else if type == "merge"
    then lib.concatMap (leaves path) value.contents
    else if type == "override"
    then map (leaf: leaf // {inherit (value) priority;}) (leaves path value.content)
    else if type != null
    then throw "a definition of the type ${type}"
    else lib.concatLists (lib.mapAttrsToList (name: leaves (path ++ [name])) value);
  definitions = file: let
    module = import file {
      inherit lib;
      inherit (machine) config options pkgs;
      specialArgs = {};
    };
  in
    leaves [] (module.config or module);
  own = path: lib.any (part: lib.take (lib.length part) path == part) skipped;
  found = lib.filter (leaf: !lib.isList leaf.value && !own leaf.path) (lib.concatMap definitions files);
  options = lib.mapAttrs (_: lib.head) (builtins.groupBy (leaf: show leaf.path) found);

  # What a host might say instead.
  key = "other-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=";
  others = {
    "homelab.nixCaches.profile" = "external";
    "homelab.nixCaches.nixServe.publicKey" = key;
    "nixherd.pull.publicKey" = key;
    "services.openssh.settings.PermitRootLogin" = "no";
    "services.tailscale.useRoutingFeatures" = "client";
  };
  other = leaf:
    others.${show leaf.path}
    or (
      if lib.isBool leaf.value
      then !leaf.value
      else if lib.isInt leaf.value
      then leaf.value + 1
      else if leaf.value == null
      then "!"
      else "${leaf.value}x"
    );

  # Where this host has a word already, the other one is said louder than that, not than anything else.
  said = leaf: let
    taken = (lib.attrByPath leaf.path {} machine.options).highestPrio or 1000 <= 100;
  in
    lib.setAttrByPath leaf.path (
      if taken
      then lib.mkOverride 99 (other leaf)
      else other leaf
    );
  with' = leaves: (machine.extendModules {modules = map said leaves;}).config;
  stands = config: leaf: lib.getAttrFromPath leaf.path config == other leaf;
  # A switch is asked alone, since it switches others off; all the rest in one machine.
  all = lib.attrValues options;
  switches = lib.filter (leaf: lib.isBool leaf.value) all;
  rest = lib.filter (leaf: !lib.isBool leaf.value) all;
  together = with' rest;
in {
  asked = lib.attrNames options;
  strong = lib.attrNames (lib.filterAttrs (_: leaf: leaf.priority < 1000) options);
  loses =
    map (leaf: show leaf.path)
    (lib.filter (leaf: !stands (with' [leaf]) leaf) switches ++ lib.filter (leaf: !stands together leaf) rest);
}
