# Functions, numbers, files, warnings, fixed points.
lib: let
  inherit (builtins) elem fromJSON fromTOML;
in rec {
  inherit (builtins) add addErrorContext bitAnd bitOr bitXor deepSeq div functionArgs genericClosure isInt isFloat isBool isPath isString isList isAttrs lessThan mul pathExists readFile readDir seq sub toJSON trace tryEval typeOf unsafeGetAttrPos;
  inherit (builtins) baseNameOf dirOf hashString hashFile ceil floor toXML;
  compare = a: b:
    if a < b
    then -1
    else if a > b
    then 1
    else 0;
  isType = type: x: x._type or null == type;
  setType = type: x: x // {_type = type;};
  traceSeq = x: y: trace (builtins.deepSeq x x) y;
  traceIf = cond: message: x:
    if cond
    then trace message x
    else x;
  release = "26.05";
  inPureEvalMode = !builtins ? currentSystem;

  id = x: x;
  const = x: _: x;
  flip = f: a: b: f b a;
  pipe = builtins.foldl' (x: f: f x);
  concat = x: y: x ++ y;
  or = x: y: x || y;
  and = x: y: x && y;
  xor = x: y: x != y;
  mergeAttrs = x: y: x // y;
  mapNullable = f: x:
    if x == null
    then null
    else f x;
  defaultTo = default: x:
    if x == null
    then default
    else x;

  min = x: y:
    if x < y
    then x
    else y;
  max = x: y:
    if x > y
    then x
    else y;
  mod = a: b: a - b * (a / b);
  toHexString = n: let
    digits = lib.stringToCharacters "0123456789ABCDEF";
  in
    (
      if n < 16
      then ""
      else toHexString (n / 16)
    )
    + builtins.elemAt digits (mod n 16);
  fromHexString = s: (fromTOML "n = 0x${lib.removePrefix "0x" s}").n;
  boolToString = b:
    if b
    then "true"
    else "false";
  boolToYesNo = b:
    if b
    then "yes"
    else "no";

  importJSON = path: fromJSON (readFile path);
  importTOML = path: fromTOML (readFile path);

  warn = message: trace "evaluation warning: ${message}";
  warnIf = cond: message:
    if cond
    then warn message
    else id;
  warnIfNot = cond: warnIf (!cond);
  info = message: trace "INFO: ${message}";
  showWarnings = warnings: x: builtins.foldl' (x: w: warn w x) x warnings;
  throwIf = cond: message:
    if cond
    then throw message
    else id;
  throwIfNot = cond: throwIf (!cond);
  assertMsg = pred: message: pred || throw message;
  assertOneOf = name: value: allowed: assertMsg (elem value allowed) "${name} must be one of ${lib.generators.toPretty {} allowed}, but is ${lib.generators.toPretty {} value}";
  traceVal = x: trace x x;
  traceValSeq = x: builtins.deepSeq x (trace x x);

  functionArgsOf = f:
    if f ? __functor
    then f.__functionArgs or (builtins.functionArgs (f.__functor f))
    else builtins.functionArgs f;
  setFunctionArgs = f: args: {
    __functor = _: f;
    __functionArgs = args;
  };
  isFunction = f: builtins.isFunction f || (isAttrs f && f ? __functor);
  toFunction = v:
    if isFunction v
    then v
    else _: v;

  fix = f: let x = f x; in x;
  extends = overlay: f: final: let prev = f final; in prev // overlay final prev;
  composeExtensions = f: g: final: prev: let a = f final prev; in a // g final (prev // a);
  composeManyExtensions = lib.foldr composeExtensions (_: _: {});
  makeOverridable = f: args: let
    result = f args;
  in
    if isAttrs result
    then
      result
      // {
        override = new:
          makeOverridable f (args
            // (
              if isFunction new
              then new args
              else new
            ));
      }
    else result;
  callPackageWith = auto: fn: args: let
    f =
      if isFunction fn
      then fn
      else import fn;
    wanted = functionArgsOf f;
  in
    makeOverridable f (builtins.intersectAttrs wanted auto // args);

  # A source tree without files of version control and editors.
  cleanSource = src:
    builtins.path {
      name = "source";
      path = src;
      filter = path: _: !(elem (baseNameOf path) [".git" ".direnv" "result"]);
    };
  cleanSourceWith = {
    src,
    filter ? (_: _: true),
    name ? "source",
  }:
    builtins.path {
      inherit name filter;
      path = src;
    };
  pathIsDirectory = path: builtins.pathExists path && builtins.readFileType path == "directory";
  pathIsRegularFile = path: builtins.pathExists path && builtins.readFileType path == "regular";
  filesystem = {
    inherit pathIsDirectory pathIsRegularFile;
    listFilesRecursive = dir:
      lib.flatten (lib.mapAttrsToList (name: type:
        if type == "directory"
        then filesystem.listFilesRecursive (dir + "/${name}")
        else dir + "/${name}") (builtins.readDir dir));
  };
  path.append = path: sub: path + "/${sub}";
}
