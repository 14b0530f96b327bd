# {fleet, sources}: the flake in the directory `fleet`, with its inputs read in place: `sources.NAME` is the directory
# of the input NAME, for every user of it. As in any flake, `follows` leads from an input's input to the fleet's.
{
  fleet,
  sources,
}: let
  load = path: from: let
    flake = import (path + "/flake.nix");
    declared = flake.inputs or {};
    # an input may be used without being declared
    names = builtins.filter (name: name != "self") (builtins.attrNames (declared // builtins.functionArgs flake.outputs));
    inputs = builtins.listToAttrs (map (name: {
        inherit name;
        value = let
          own = declared.${name} or {};
          followed = from.${name}.follows or own.follows or null;
        in
          if followed != null
          then follow followed path
          else given name own path;
      })
      names);
    outputs = flake.outputs (inputs // {inherit self;});
    self =
      outputs
      // tree path
      // {
        inherit inputs outputs;
        _type = "flake";
      };
  in
    self;
  # The value of every input, a flake or not. A string: a path would be copied to the store.
  tree = path: rec {
    outPath = toString path;
    lastModified = 1;
    lastModifiedDate = "19700101000001";
    sourceInfo = {inherit outPath lastModified lastModifiedDate;};
  };
  given = name: own: asker:
    if !(sources ? ${name})
    then throw "the input ${name} of ${toString asker}/flake.nix is not given"
    else if own.flake or true
    then load sources.${name} (own.inputs or {})
    else tree sources.${name};
  # `a/b` is the input b of the fleet's a; empty: the fleet itself.
  follow = way: asker: let
    names = builtins.filter (part: builtins.isString part && part != "") (builtins.split "/" way);
  in
    builtins.foldl' (flake: name: flake.inputs.${name} or (given name {} asker)) root names;
  root = load fleet {};
in
  root
