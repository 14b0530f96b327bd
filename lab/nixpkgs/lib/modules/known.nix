# Options that only the real modules declare: their names and types, from the tables that the lab's set-up writes to
# ../../options (lab/options/tree.py describes the trees). They accept definitions of their type; an option that is
# not set has no value, because its default is unknown here.
lib: let
  inherit (lib) concatMap filter isAttrs isInt isList isString showOption;
  inherit (import ./definitions.nix lib) discharge pushDown;

  tables = import ./tables.nix;

  # The nodes at the attribute `name` of several nodes, and the existing attributes.
  childOf = name: concatMap (node: lib.optional (node ? ${name}) node.${name});
  all = sets:
    if sets == []
    then {}
    else lib.foldl' (found: set: found // set) (builtins.head sets) (builtins.tail sets);
  levelOf = nodes: removeAttrs (all nodes) [""];
  # The options below any attribute (`<name>`) or any list position (`*`).
  inner = isWildcard: nodes: concatMap (name: childOf name nodes) (filter isWildcard (builtins.attrNames (levelOf nodes)));
  ofAttributes = inner (name: builtins.substring 0 1 name == "<");
  ofList = inner (name: name == "*");
  groups = filter isAttrs;
  typesOf = concatMap (node:
    if isInt node
    then [node]
    else lib.optional (node ? "") node."");

  # A type from its description (lab/options/types.py); `nodes` are the options below it.
  typeFrom = nodes: spec: let
    t = lib.types;
    name = builtins.head spec;
    argument = builtins.elemAt spec 1;
    of = from: typeFrom (from nodes) argument;
    submodule = freeform:
      t.submoduleWith {
        modules = lib.optional (freeform != null) {freeformType = freeform;};
        shorthandOnlyDefinesConfig = true;
        known = groups nodes;
      };
    plain = {
      inherit (t) attrs bool float int nonEmptyStr package path singleLineStr str;
      any = t.undeclared;
      null = t.enum [null];
      positive = t.ints.positive;
      unsigned = t.ints.unsigned;
      submodule =
        if groups nodes == []
        then t.undeclared
        else submodule null;
    };
    built = {
      attrsOf = t.attrsOf (of ofAttributes);
      between = bounded argument (builtins.elemAt spec 2);
      either = t.oneOf (map (typeFrom nodes) argument);
      enum = t.enum argument;
      functionTo = t.functionTo (of (_: []));
      lazyAttrsOf = t.lazyAttrsOf (of ofAttributes);
      listOf = t.listOf (of ofList);
      matching = t.strMatching argument;
      nonEmptyListOf = t.nonEmptyListOf (of ofList);
      nullOr = t.nullOr (of lib.id);
      open = submodule (opened argument);
      separated = t.separatedString argument;
    };
    # `open submodule of attribute set of X`: each unknown attribute is an X
    opened = free: let
      type = typeFrom [] free;
    in
      if type ? nestedTypes.elemType
      then type
      else t.lazyAttrsOf t.undeclared;
    bounded = low: high: lib.types.addCheck t.int (x: x >= low && x <= high);
  in
    if isString spec
    then plain.${spec}
    else built.${name};

  typeOf = nodes: index: let
    entry = builtins.elemAt tables.types index;
  in
    typeFrom nodes (builtins.elemAt entry 1) // {description = builtins.head entry;};

  # The declaration of the option at `path`, null if `nodes` only contains other options.
  declaration = path: nodes: let
    type = typeOf (groups nodes) (builtins.head (typesOf nodes));
  in
    if typesOf nodes == []
    then null
    else
      lib.mkOption ({inherit type;}
        // lib.optionalAttrs (type.name != "submodule") {
          default = throw "The option `${showOption path}' was read, nothing sets it, and the lab's stand-in does not know its default: set it, or declare it with its default in lab/nixpkgs/nixos/modules/misc/declared.nix.";
        });

  # The type of an option that is also declared here: the options below it are those of both.
  extend = path: nodes: option: let
    below = groups nodes;
  in
    if option.type ? untyped
    then
      if typesOf nodes == []
      then option.type
      else typeOf below (builtins.head (typesOf nodes))
    else if below == []
    then option.type
    else extendType below option.type;
  extendType = nodes: type: let
    # keep a check that was added to a type
    as = other: type // {inherit (other) merge getSubModules nestedTypes;};
    elem = type.nestedTypes.elemType;
  in
    if nodes == []
    then type
    else if type ? withKnown
    then type.withKnown nodes
    else if type.name == "attrsOf"
    then as (lib.types.attrsOf (extendType (ofAttributes nodes) elem))
    else if type.name == "lazyAttrsOf"
    then as (lib.types.lazyAttrsOf (extendType (ofAttributes nodes) elem))
    else if type.name == "listOf"
    then as (lib.types.listOf (extendType (ofList nodes) elem))
    else if type.name == "nullOr"
    then as (lib.types.nullOr (extendType nodes elem))
    else type;

  # Definitions of renamed options, under the new name; for removed ones, a failing assertion.
  movedDefinitions = known: defs: let
    walk = path: nodes: defs: let
      sets = concatMap (def:
        map (value: {
          inherit (def) file;
          inherit value;
        }) (filter isAttrs (pushDown def.value)))
      defs;
    in
      concatMap (attr: let
        here = path ++ [attr];
        mine = concatMap (set:
          lib.optional (set.value ? ${attr}) {
            inherit (set) file;
            value = set.value.${attr};
          })
        sets;
        found = childOf attr nodes;
        leaves = filter isList found;
      in
        if mine == []
        then []
        else if leaves == []
        then walk here (groups found) mine
        else map (moved here (builtins.head leaves)) mine)
      (builtins.attrNames (builtins.intersectAttrs (all (map (set: set.value) sets)) (all nodes)));
    moved = from: to: def: {
      inherit (def) file;
      value = let
        said = lib.optional (discharge from def != []);
      in
        if to == []
        then {
          assertions = said {
            assertion = false;
            message = "The option definition `${showOption from}' in `${def.file}' no longer has any effect; please remove it.";
          };
        }
        else
          lib.recursiveUpdate (lib.setAttrByPath to def.value) {
            warnings = said "The option `${showOption from}' defined in `${def.file}' has been renamed to `${showOption to}'.";
          };
    };
    former = concatMap (set: lib.optional (set ? former) set.former) known;
  in
    if former == []
    then []
    else walk [] former defs;
in {
  inherit childOf declaration extend levelOf movedDefinitions;
  # The options of a set of modules ("nixos", "home-manager", "sops-nix", …), for a module's `_known`.
  knownOptions = set: {
    options = tables.${set};
    former = tables."${set}-former";
  };
}
