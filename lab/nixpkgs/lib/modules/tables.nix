# The tables that the lab's set-up writes to ../../options; each part is read once per evaluation:
# SET and SET-former are trees as described in lab/options/tree.py, without their strings; `types` is a list.
let
  directory = ../../options;
  read = name: builtins.fromJSON (builtins.readFile (directory + "/${name}.json"));
  open = node:
    if builtins.isAttrs node
    then builtins.mapAttrs (_: open) node
    else if builtins.isList node
    then open (builtins.fromJSON (builtins.head node))
    else node;
  sets = map (builtins.replaceStrings [".json"] [""]) (builtins.attrNames (builtins.readDir directory));
  table = name: {
    inherit name;
    value =
      if name == "types" || builtins.match ".*-former" name != null
      then read name
      else open (read name);
  };
in
  if builtins.pathExists directory
  then builtins.listToAttrs (map table sets)
  else throw "The tables of options are missing (${toString directory}): the lab's set-up writes them beside a copy of its nixpkgs."
