# The one evaluation behind `load_fleet`: what hosts.nix, nixherd.nix and vms/definitions.nix of a fleet say, as plain JSON.
#
# They are evaluated in a closed world: `world` tells which files there are, and Nix's restrict-eval enforces it. What
# Nix then answers as if there were nothing (an environment without variables, a path that does not exist), and what it
# tells all the same (the time), is an error here, one that `tryEval` does not catch.
#
# Paths come out marked, so that nothing is copied to the store and a string is not taken for a path. What JSON has no
# word for (a function, a derivation in somebody's notes) comes out as a word for it, marked as well.
world:
let
  inherit (builtins)
    attrNames
    baseNameOf
    filter
    foldl'
    hasContext
    intersectAttrs
    isString
    listToAttrs
    mapAttrs
    split
    stringLength
    substring
    ;

  # Nothing but a function of its arguments, in every Nix that has it.
  pure = [
    "abort"
    "add"
    "addDrvOutputDependencies"
    "addErrorContext"
    "all"
    "any"
    "appendContext"
    "attrNames"
    "attrValues"
    "baseNameOf"
    "bitAnd"
    "bitOr"
    "bitXor"
    "break"
    "catAttrs"
    "ceil"
    "compareVersions"
    "concatLists"
    "concatMap"
    "concatStringsSep"
    "convertHash"
    "deepSeq"
    "derivation"
    "derivationStrict"
    "dirOf"
    "div"
    "elem"
    "elemAt"
    "false"
    "filter"
    "flakeRefToString"
    "floor"
    "foldl'"
    "fromJSON"
    "fromTOML"
    "functionArgs"
    "genList"
    "genericClosure"
    "getAttr"
    "getContext"
    "groupBy"
    "hasAttr"
    "hasContext"
    "hashString"
    "head"
    "intersectAttrs"
    "isAttrs"
    "isBool"
    "isFloat"
    "isFunction"
    "isInt"
    "isList"
    "isNull"
    "isPath"
    "isString"
    "langVersion"
    "length"
    "lessThan"
    "listToAttrs"
    "map"
    "mapAttrs"
    "match"
    "mul"
    "nixVersion"
    "null"
    "outputOf"
    "parseDrvName"
    "parseFlakeRef"
    "partition"
    "placeholder"
    "removeAttrs"
    "replaceStrings"
    "seq"
    "sort"
    "split"
    "splitVersion"
    "storeDir"
    "stringLength"
    "sub"
    "substring"
    "tail"
    "throw"
    "toFile"
    "toJSON"
    "toPath"
    "toString"
    "toXML"
    "trace"
    "traceVerbose"
    "true"
    "tryEval"
    "typeOf"
    "unsafeDiscardOutputDependency"
    "unsafeDiscardStringContext"
    "unsafeGetAttrPos"
    "warn"
    "zipAttrsWith"
  ];

  asks = {
    currentSystem = "tells on what machine this is evaluated";
    currentTime = "reads the clock";
    exec = "runs a program";
    fetchClosure = "reads a binary cache";
    findFile = "looks for files elsewhere";
    getEnv = "reads the environment";
    importNative = "runs a program";
    nixPath = "reads the environment";
    storePath = "reads the Nix store";
  };

  refuse =
    name:
    let
      isFetch = substring 0 5 name == "fetch" || name == "getFlake";
      what = asks.${name} or (if isFetch then "fetches" else "is not known to be pure");
    in
    abort "builtins.${name}: ${what}; the fleet's own files see the files of their repository alone, write the value down";

  # Places

  # Where a path leads, which has to be in here; `name` is the function that asks.
  resolve =
    name: text:
    let
      path = toString (/. + text);
      isBelow = root: path == root || root == "/" || substring 0 (stringLength root + 1) path == "${root}/";
      roots = filter isBelow world.roots;
      root = builtins.head roots;
      rest = substring (stringLength root) (-1) path;
      parts = filter (part: isString part && part != "") (split "/" rest);
    in
    if roots == [ ] then
      abort "builtins.${name}: ${path} lies outside of the fleet's repository; move it to where it is seen, below ${builtins.head world.roots}"
    else
      foldl' (step name) (if root == "/" then "" else root) parts;

  step =
    name: above: part:
    let
      path = "${above}/${part}";
    in
    if world.closed ? ${path} then
      abort "builtins.${name}: ${path} ${world.closed.${path}}"
    else
      world.links.${path} or path;

  seen =
    name: place:
    let
      text = toString place;
    in
    if hasContext text then
      abort "builtins.${name}: ${text} would have to be built or copied to the Nix store first; name the file itself"
    else if substring 0 1 text != "/" then
      text # no path: the function itself says so
    else
      /. + resolve name text;

  # Files of Nix, each evaluated once as by Nix's own import, which would let them out.
  modules = listToAttrs (
    map (file: {
      name = file;
      value = builtins.scopedImport scope (/. + file);
    }) world.modules
  );

  importing =
    place:
    let
      path = seen "import" place;
      text = toString path;
    in
    modules.${text} or modules.${step "import" text "default.nix"} or (builtins.scopedImport scope path);

  # Names

  reading = {
    readFile = place: builtins.readFile (seen "readFile" place);
    readDir = place: builtins.readDir (seen "readDir" place);
    readFileType = place: builtins.readFileType (seen "readFileType" place);
    pathExists = place: builtins.pathExists (seen "pathExists" place);
    hashFile = type: place: builtins.hashFile type (seen "hashFile" place);
    filterSource = select: place: builtins.filterSource select (seen "filterSource" place);
    path =
      asked:
      builtins.path (
        { name = baseNameOf (toString asked.path); } // asked // { path = seen "path" asked.path; }
      );
    import = importing;
    scopedImport = names: place: builtins.scopedImport (scope // names) (seen "scopedImport" place);
  };

  harmless = intersectAttrs (listToAttrs (map (name: { inherit name; value = null; }) pure)) builtins;
  refused = mapAttrs (name: _: refuse name) (
    removeAttrs builtins (pure ++ attrNames reading ++ [ "builtins" ])
  );
  ours = refused // intersectAttrs builtins reading;
  safe = harmless // ours // { builtins = safe; };

  # Every name that Nix knows everywhere, `__getEnv` for builtins.getEnv and a few without underscores; `<…>` is
  # short for a call of __findFile.
  scope =
    listToAttrs (map (name: { name = "__${name}"; value = ours.${name}; }) (attrNames ours))
    // intersectAttrs {
      import = null;
      scopedImport = null;
      fetchGit = null;
      fetchMercurial = null;
      fetchTarball = null;
      fetchTree = null;
    } ours
    // {
      builtins = safe;
      __findFile =
        _: name:
        abort "builtins.findFile: <${name}> is looked for elsewhere; the fleet's own files see the files of their repository alone, write its path";
    };

  # Values

  # `place` is the last known before a value is made, in the form in which Nix gives places.
  plain = place: value: builtins.addErrorContext place (plainly place value);

  plainly =
    place: value:
    let
      type = builtins.typeOf value;
    in
    if type == "path" then
      { ${world.marker} = toString value; }
    else if type == "list" then
      map (plain place) value
    else if type == "lambda" then
      { ${world.marker} = "<function>"; }
    else if type != "set" then
      value
    else if value.type or null == "derivation" then
      { ${world.marker} = "<derivation>"; }
    else
      # toJSON would print these two in the set's place.
      mapAttrs (name: plain (placeOf place name value)) (
        removeAttrs value [
          "outPath"
          "__toString"
        ]
      );

  placeOf =
    above: name: set:
    let
      place = builtins.unsafeGetAttrPos name set;
    in
    if place == null then above else "at ${place.file}:${toString place.line}:${toString place.column}:";

  # null for a file that is not there
  evaluated = name: let
    file = "${world.fleet}/${name}";
  in
    if reading.pathExists file then plain "at ${file}:1:1:" (importing file) else null;
  beside = evaluated "nixherd.nix";
in
{
  inherit beside;
  hosts = if builtins.isAttrs beside && beside.useHostsFile or true == false then null else evaluated "hosts.nix";
  definitions = evaluated "vms/definitions.nix";
}
