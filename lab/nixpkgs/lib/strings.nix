# Strings.
lib: let
  inherit (builtins) elemAt filter head isList;
in rec {
  inherit (builtins) compareVersions concatStringsSep fromJSON hasContext isString match parseDrvName readFile replaceStrings split splitVersion storeDir stringLength substring toJSON unsafeDiscardStringContext;

  concatStrings = concatStringsSep "";
  concatMapStrings = f: xs: concatStrings (map f xs);
  concatMapStringsSep = sep: f: xs: concatStringsSep sep (map f xs);
  concatImapStrings = f: xs: concatStrings (lib.imap1 f xs);
  concatImapStringsSep = sep: f: xs: concatStringsSep sep (lib.imap1 f xs);
  concatMapAttrsStringSep = sep: f: set: concatStringsSep sep (lib.mapAttrsToList f set);
  concatLines = concatMapStrings (line: line + "\n");
  intersperse = sep: xs: lib.drop 1 (builtins.concatMap (x: [sep x]) xs);
  optionalString = cond: s:
    if cond
    then s
    else "";
  join = concatStringsSep;
  replicate = n: s: concatStrings (lib.genList (_: s) n);

  hasPrefix = prefix: s: substring 0 (stringLength prefix) s == prefix;
  hasSuffix = suffix: s: let
    n = stringLength s;
    m = stringLength suffix;
  in
    n >= m && substring (n - m) m s == suffix;
  hasInfix = infix: s: match ".*${escapeRegex infix}.*" (replaceStrings ["\n"] [" "] s) != null;
  removePrefix = prefix: s:
    if hasPrefix prefix s
    then substring (stringLength prefix) (-1) s
    else s;
  removeSuffix = suffix: s:
    if hasSuffix suffix s
    then substring 0 (stringLength s - stringLength suffix) s
    else s;
  splitString = sep: s: filter isString (split (escapeRegex sep) (toString s));
  stringToCharacters = s: lib.genList (n: substring n 1 s) (stringLength s);
  stringAsChars = f: s: concatStrings (map f (stringToCharacters s));
  trim = s: let
    m = match "[ \t\r\n]*(.*[^ \t\r\n])[ \t\r\n]*" s;
  in
    if m == null
    then ""
    else head m;
  fileContents = file: removeSuffix "\n" (builtins.readFile file);
  lowerChars = stringToCharacters "abcdefghijklmnopqrstuvwxyz";
  upperChars = stringToCharacters "ABCDEFGHIJKLMNOPQRSTUVWXYZ";
  toLower = replaceStrings upperChars lowerChars;
  toUpper = replaceStrings lowerChars upperChars;
  toSentenceCase = s: toUpper (substring 0 1 s) + toLower (substring 1 (-1) s);
  fixedWidthString = width: filler: s:
    if stringLength s >= width
    then s
    else fixedWidthString width filler (filler + s);
  fixedWidthNumber = width: n: fixedWidthString width "0" (toString n);

  escape = chars: replaceStrings chars (map (c: "\\${c}") chars);
  escapeRegex = escape (stringToCharacters "\\[{()^$?*+|.");
  escapeShellArg = arg: let
    s = toString arg;
  in
    if match "[[:alnum:],._+:@%/-]+" s != null
    then s
    else "'${replaceStrings ["'"] ["'\\''"] s}'";
  escapeShellArgs = concatMapStringsSep " " escapeShellArg;
  escapeNixString = s: escape ["$"] (builtins.toJSON s);
  escapeNixIdentifier = s:
    if match "[a-zA-Z_][a-zA-Z0-9_'-]*" s != null
    then s
    else escapeNixString s;
  replaceString = from: to: replaceStrings [from] [to];
  nameFromURL = url: sep: head (splitString sep (lib.last (splitString "/" url)));
  toCamelCase = s: let
    words = filter (w: w != "") (filter isString (split "[^[:alnum:]]+" s));
  in
    concatStrings (lib.imap0 (i: w:
      if i == 0
      then toLower (substring 0 1 w) + substring 1 (-1) w
      else toSentenceCase w)
    words);
  escapeXML = replaceStrings ["\"" "'" "<" ">" "&"] ["&quot;" "&apos;" "&lt;" "&gt;" "&amp;"];
  escapeSystemdPath = s: replaceStrings ["/"] ["-"] (removePrefix "/" s);
  toShellVar = name: value:
    if lib.isAttrs value && !isStringLike value
    then "declare -A ${name}=(${concatStringsSep " " (lib.mapAttrsToList (n: v: "[${escapeShellArg n}]=${escapeShellArg v}") value)})"
    else if isList value
    then "declare -a ${name}=(${escapeShellArgs value})"
    else "${name}=${escapeShellArg value}";
  toShellVars = vars: concatStringsSep "\n" (lib.mapAttrsToList toShellVar vars);

  isStringLike = x: isString x || builtins.isPath x || x ? outPath || x ? __toString;
  isConvertibleWithToString = x: isStringLike x || x == null || lib.isInt x || lib.isFloat x || lib.isBool x || (isList x && builtins.all isConvertibleWithToString x);
  isStorePath = x: isStringLike x && hasPrefix "${builtins.storeDir}/" (toString x);
  isValidPosixName = s: match "[a-zA-Z_][a-zA-Z0-9_]*" s != null;
  toInt = s: let
    m = match "[ \t]*(-?[0-9]+)[ \t]*" s;
  in
    if m == null
    then throw "toInt: could not convert ${builtins.toJSON s} to int"
    else builtins.fromJSON (stripZeros (head m));
  toIntBase10 = toInt;
  stripZeros = s: let m = match "(-?)0*([0-9]+)" s; in head m + elemAt m 1;
  versionOlder = a: b: builtins.compareVersions b a == 1;
  versionAtLeast = a: b: !versionOlder a b;
  versions = {
    major = v: elemAt (builtins.splitVersion v) 0;
    minor = v: elemAt (builtins.splitVersion v) 1;
    majorMinor = v: concatStringsSep "." (lib.take 2 (builtins.splitVersion v));
  };
  getName = x: x.pname or (builtins.parseDrvName (x.name or x)).name;
  getVersion = x: x.version or (builtins.parseDrvName (x.name or x)).version;
  sanitizeDerivationName = s: let
    clean = concatStrings (map (c:
      if isList c
      then "-"
      else c) (split "[^[:alnum:]+._?=-]+" (builtins.unsafeDiscardStringContext (toString s))));
    start = head (match "\\.*(.*)" clean);
  in
    if start == ""
    then "unknown"
    else substring 0 200 start;

  makeSearchPath = sub: paths: concatStringsSep ":" (map (p: "${toString p}/${sub}") (filter (p: p != null) paths));
  makeSearchPathOutput = output: sub: paths: makeSearchPath sub (map (lib.getOutput output) paths);
  makeBinPath = makeSearchPathOutput "bin" "bin";
  makeLibraryPath = makeSearchPathOutput "lib" "lib";
}
