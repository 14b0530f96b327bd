# Definitions: their conditions, priorities and order, and the merging of those that remain.
lib: let
  inherit (lib) concatMap filter isAttrs mapAttrs showDefs showOption;
  defaultPriority = 100;

  mkIf = condition: content: {
    _type = "if";
    inherit condition content;
  };
  mkMerge = contents: {
    _type = "merge";
    inherit contents;
  };
  mkOverride = priority: content: {
    _type = "override";
    inherit priority content;
  };
  mkOrder = priority: content: {
    _type = "order";
    inherit priority content;
  };
  mkOptionDefault = mkOverride 1500;

  # [{file; value;}] with every mkMerge taken apart and every mkIf decided; the condition of an mkIf must be a boolean.
  discharge = path: def: let
    value = def.value;
    type = value._type or null;
    again = content: discharge path (def // {value = content;});
  in
    if !isAttrs value
    then [def]
    else if type == "merge"
    then concatMap again value.contents
    else if type == "if"
    then
      (
        if !lib.isBool value.condition
        then throw "‘mkIf’ called with a non-Boolean condition for the option `${showOption path}' in `${def.file}'"
        else if value.condition
        then again value.content
        else []
      )
    # the content of an override is only evaluated when it is known to win
    else if type == "override"
    then [
      (def
        // {
          value = value.content;
          priority = def.priority or value.priority;
          sealed = true;
        })
    ]
    else if type == "order"
    then map (d: d // {order = d.order or value.priority;}) (again value.content)
    else if type == "definition"
    then again value.value
    else [def];

  # Only the definitions of the strongest (lowest) priority, in their order.
  strongest = path: defs: let
    priority = def: def.priority or defaultPriority;
    best = lib.foldl' (low: def: lib.min low (priority def)) 9999 defs;
    kept = concatMap (def:
      if def ? sealed
      then discharge path (removeAttrs def ["sealed"])
      else [def]) (filter (def: priority def == best) defs);
    order = def: def.order or 1000;
  in {
    inherit best;
    defs =
      if lib.any (def: def ? order) kept
      then lib.sort (a: b: order a < order b) kept
      else kept;
  };

  # Merge all definitions `defs` of the option at `path`.
  mergeDefinitions = path: type: defs: let
    ranked = strongest path (concatMap (discharge path) defs);
    wrong = filter (def: !type.check def.value) ranked.defs;
    isDefined = ranked.defs != [];
  in {
    inherit isDefined;
    highestPrio = ranked.best;
    definitions = ranked.defs;
    value = builtins.addErrorContext "while evaluating the option `${showOption path}':" (
      if !isDefined
      then type.emptyValue or (throw "The option `${showOption path}' was accessed but has no value defined. Try setting the option.")
      else if wrong != []
      then throw "A definition for option `${showOption path}' is not of type `${type.description}'. Definition values:${showDefs wrong}"
      else type.merge path ranked.defs
    );
  };

  # The attribute sets that a definition consists of, conditions and priorities moved onto their attributes: the
  # names are known without deciding any condition, which may depend on the configuration.
  pushDown = value: let
    type = value._type or null;
    each = wrap: concatMap (set: [(mapAttrs (_: wrap) set)]) (pushDown value.content);
  in
    if type == "merge"
    then concatMap pushDown value.contents
    else if type == "if"
    then each (mkIf value.condition)
    else if type == "override"
    then each (mkOverride value.priority)
    else if type == "order"
    then each (mkOrder value.priority)
    else [value];
in {
  inherit defaultPriority discharge mergeDefinitions mkIf mkMerge mkOptionDefault mkOrder mkOverride pushDown;
}
