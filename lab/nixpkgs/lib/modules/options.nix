# Combines declared options and definitions, level by level.
lib: let
  inherit (lib) concatMap filter head isAttrs isOption length mapAttrs mkOptionDefault optional showDefs showFiles showOption;
  inherit (import ./definitions.nix lib) mergeDefinitions pushDown;
  inherit (import ./known.nix lib) childOf declaration extend levelOf;

  # `decls`: [{file; options;}], `defs`: [{file; value;}] of the level `path`. With a free-form type, undeclared attributes
  # are merged by it; without one they are listed in `undeclared`. `known`: the declarations of the real modules
  # here (see known.nix); a declaration of the same option here sets its default.
  mergeLevel = freeform: known: path: decls: defs: let
    byName = attr: xs:
      lib.zipAttrsWith (_: found: found) (map (x:
        mapAttrs (_: value: {
          inherit (x) file;
          inherit value;
        })
        x.${attr})
      xs);
    declared = byName "options" decls;
    checkSet = def:
      if isAttrs def.value
      then def
      else throw "The option `${showOption path}' has sub-options, but is set to a ${builtins.typeOf def.value} in `${def.file}'";
    defined = byName "value" (concatMap (def: map (value: checkSet (def // {inherit value;})) (pushDown def.value)) defs);
    real = levelOf known;
    below = mapAttrs (name: found: let
      here = path ++ [name];
      nodes = childOf name known;
      options = filter (d: isOption d.value) found;
      mine = defined.${name} or [];
    in
      if options == []
      then
        mergeLevel freeform (filter isAttrs nodes) here (map (d: {
            inherit (d) file;
            options = d.value;
          })
          found)
        mine
      else if length options != length found && (joinOptions here options).type.getSubModules or null == null
      then throw "The option `${showOption here}' in ${showFiles (map (d: d.file) options)} would be a parent of other options."
      else evalOption here nodes found mine)
    declared;
    # There are thousands of these: each is only evaluated when it is read, and immediately only if it is set.
    evalKnown = name: mine: let
      here = path ++ [name];
      nodes = childOf name known;
      option = declaration here nodes;
    in
      if option == null
      then mergeLevel freeform nodes here [] mine
      else
        evalOption here [] [
          {
            file = "nixpkgs";
            value = option;
          }
        ]
        mine;
    set = mapAttrs evalKnown (builtins.intersectAttrs real (removeAttrs defined (builtins.attrNames declared)));
    unset = what: mapAttrs (name: _: (evalKnown name []).${what}) real;
    # declared values, then the free ones; each attribute lazily
    free = removeAttrs defined (builtins.attrNames declared ++ builtins.attrNames set);
    freeType = freeform.nestedTypes.elemType or freeform;
  in {
    # The names are known without evaluating any definition, which may ask for them: `options ? sops`.
    options = mapAttrs (name: _: (set.${name} or (evalKnown name [])).options) real // mapAttrs (_: b: b.options) below;
    # A free-form set is evaluated as a whole: attributes without a value are left out.
    config =
      lib.optionalAttrs (freeform == null) (unset "config")
      // mapAttrs (_: b: b.config) (set // below)
      // lib.optionalAttrs (freeform != null) (mapAttrs (name: found: (mergeDefinitions (path ++ [name]) freeType found).value) free);
    undeclared =
      concatMap (b: b.undeclared) (builtins.attrValues (set // below))
      ++ lib.mapAttrsToList (name: found: {
        path = path ++ [name];
        defs = found;
      })
      free;
  };

  # Several declarations of one option: their attributes together, submodules merged.
  joinOptions = path: found:
    lib.foldl' (all: d: let
      new = d.value;
      type =
        if !(all ? type) || all.type ? untyped
        then new.type or (lib.types.unspecified // {untyped = true;})
        else if !(new ? type)
        then all.type
        else if all.type ? substSubModules && new.type ? substSubModules
        then all.type.substSubModules (all.type.getSubModules ++ new.type.getSubModules)
        else if all.type.name == "enum" && new.type.name == "enum"
        then lib.types.enum (lib.unique (all.type.payload ++ new.type.payload))
        else if all.type.name == new.type.name
        then all.type
        else throw "The option `${showOption path}' in `${d.file}' is already declared in ${showFiles all.declarations} with another type.";
    in
      if all ? default && new ? default && all ? type && all.type.name != "submodule"
      then throw "The option `${showOption path}' in `${d.file}' is already declared in ${showFiles all.declarations}."
      else
        all
        // new
        // {
          inherit type;
          declarations = all.declarations ++ [d.file];
        })
    {declarations = [];}
    found;

  evalOption = path: known: found: defs: let
    nested = filter (d: !isOption d.value) found;
    joined = joinOptions path (filter (d: isOption d.value) found);
    # the real option's type, if the declaration has none, and the options below it
    typed =
      if known == []
      then joined
      else joined // {type = extend path known joined;};
    # options declared below an option of submodule type extend the submodule
    opt =
      if nested == []
      then typed
      else
        typed
        // {
          type = typed.type.substSubModules (typed.type.getSubModules
            ++ map (d: {
              _file = d.file;
              options = d.value;
            })
            nested);
        };
    default = optional (opt ? default) {
      file = head opt.declarations;
      value = mkOptionDefault opt.default;
    };
    merged = mergeDefinitions path opt.type (defs ++ default);
    value =
      if opt.readOnly or false && length defs > 1
      then throw "The option `${showOption path}' is read-only, but it's set multiple times. Definition values:${showDefs defs}"
      else (opt.apply or lib.id) merged.value;
    here =
      opt
      // {
        inherit value;
        inherit (merged) isDefined highestPrio;
        loc = path;
        files = map (d: d.file) merged.definitions;
        definitionsWithLocations = merged.definitions;
        definitions = map (d: d.value) merged.definitions;
        __toString = _: showOption path;
      };
  in {
    options = here;
    config = value;
    undeclared = [];
  };
in {
  inherit mergeLevel;
}
