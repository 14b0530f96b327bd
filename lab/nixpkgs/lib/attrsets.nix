# Attribute sets.
lib: let
  inherit (builtins) concatMap elemAt foldl' head isAttrs length map tail;
in rec {
  inherit (builtins) attrNames attrValues catAttrs getAttr hasAttr intersectAttrs listToAttrs mapAttrs removeAttrs zipAttrsWith;

  nameValuePair = name: value: {inherit name value;};
  optionalAttrs = cond: set:
    if cond
    then set
    else {};
  isDerivation = x: isAttrs x && x.type or null == "derivation";

  attrByPath = path: default: set:
    if path == []
    then set
    else if isAttrs set && set ? ${head path}
    then attrByPath (tail path) default set.${head path}
    else default;
  hasAttrByPath = path: set: path == [] || (isAttrs set && set ? ${head path} && hasAttrByPath (tail path) set.${head path});
  getAttrFromPath = path: attrByPath path (throw "cannot find attribute `${lib.concatStringsSep "." path}'");
  setAttrByPath = path: value:
    if path == []
    then value
    else {${head path} = setAttrByPath (tail path) value;};

  attrVals = names: set: map (name: set.${name}) names;
  getAttrs = names: set: genAttrs names (name: set.${name});
  genAttrs = names: f: listToAttrs (map (name: nameValuePair name (f name)) names);
  genAttrs' = xs: f: listToAttrs (map f xs);
  filterAttrs = pred: set: removeAttrs set (builtins.filter (name: !pred name set.${name}) (attrNames set));
  filterAttrsRecursive = pred: set:
    mapAttrs (_: v:
      if isAttrs v
      then filterAttrsRecursive pred v
      else v) (filterAttrs pred set);
  mapAttrs' = f: set: listToAttrs (map (name: f name set.${name}) (attrNames set));
  mapAttrsToList = f: set: map (name: f name set.${name}) (attrNames set);
  attrsToList = mapAttrsToList nameValuePair;
  concatMapAttrs = f: set: foldl' (acc: name: acc // f name set.${name}) {} (attrNames set);
  foldlAttrs = f: init: set: foldl' (acc: name: f acc name set.${name}) init (attrNames set);
  mergeAttrsList = foldl' (a: b: a // b) {};
  mapAttrsRecursiveCond = cond: f: let
    go = path:
      mapAttrs (name: value:
        if isAttrs value && cond value
        then go (path ++ [name]) value
        else f (path ++ [name]) value);
  in
    go [];
  mapAttrsRecursive = mapAttrsRecursiveCond (_: true);
  mapAttrsToListRecursive = f: set: collect (_: true) (mapAttrsRecursive f set);
  collect = pred: x:
    if pred x
    then [x]
    else if isAttrs x
    then concatMap (collect pred) (builtins.attrValues x)
    else [];

  foldAttrs = op: nul: sets: mapAttrs (_: lib.foldr op nul) (zipAttrs sets);
  overrideExisting = old: new: mapAttrs (name: value: new.${name} or value) old;
  updateManyAttrsByPath = updates: set: foldl' (done: u: recursiveUpdate done (setAttrByPath u.path (u.update (getAttrFromPath u.path done)))) set updates;
  zipAttrs = zipAttrsWith (_: values: values);
  recursiveUpdateUntil = stop: a: b: let
    go = path:
      zipAttrsWith (name: values: let
        here = path ++ [name];
      in
        if length values == 1
        then head values
        else if stop here (elemAt values 1) (head values)
        then head values
        else go here values);
  in
    go [] [b a];
  recursiveUpdate = recursiveUpdateUntil (_: l: r: !(isAttrs l && isAttrs r));
  matchAttrs = pattern: set:
    builtins.all (name:
      set
      ? ${name}
      && (
        if isAttrs pattern.${name}
        then isAttrs set.${name} && matchAttrs pattern.${name} set.${name}
        else pattern.${name} == set.${name}
      )) (attrNames pattern);
  recurseIntoAttrs = set: set // {recurseForDerivations = true;};
  unionOfDisjoint = a: b:
    if intersectAttrs a b == {}
    then a // b
    else throw "unionOfDisjoint: both sets have ${lib.concatStringsSep ", " (attrNames (intersectAttrs a b))}";
  getOutput = output: pkg: pkg.${output} or pkg;
  getBin = getOutput "bin";
  getLib = getOutput "lib";
  getDev = getOutput "dev";
  getMan = getOutput "man";
}
