# {fleet, sources}: the flake in the directory `fleet`, its inputs read where they lie: `sources.NAME` is the directory
# of the input NAME, wherever it is asked for. As of any flake, `follows` leads from an input's input to the fleet's.
{
  fleet,
  sources,
}: let
  load = path: from: let
    flake = import (path + "/flake.nix");
    declared = flake.inputs or {};
    # an input may be asked for without being declared
    names = builtins.filter (name: name != "self") (builtins.attrNames (declared // builtins.functionArgs flake.outputs));
    inputs = builtins.listToAttrs (map (name: {
        inherit name;
        value = given (from.${name}.follows or declared.${name}.follows or name) (declared.${name}.inputs or {}) path;
      })
      names);
    outputs = flake.outputs (inputs // {inherit self;});
    self =
      outputs
      // rec {
        inherit inputs outputs;
        _type = "flake";
        # a string: as a path it would be copied to the store wherever it is written into one
        outPath = toString path;
        sourceInfo = {inherit outPath lastModified lastModifiedDate;};
        lastModified = 1;
        lastModifiedDate = "19700101000001";
      };
  in
    self;
  given = name: from: asker:
    if sources ? ${name}
    then load sources.${name} from
    else throw "the input ${name} of ${toString asker}/flake.nix was not given";
in
  load fleet {}
