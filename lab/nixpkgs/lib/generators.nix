# Text formats of values, and the notation of values in messages.
lib: rec {
  mkValueStringDefault = {}: v:
    if v == true
    then "true"
    else if v == false
    then "false"
    else if v == null
    then "null"
    else toString v;
  mkKeyValueDefault = {mkValueString ? mkValueStringDefault {}}: sep: k: v: "${lib.escape [sep] k}${sep}${mkValueString v}";
  toKeyValue = {
    mkKeyValue ? mkKeyValueDefault {} "=",
    listsAsDuplicateKeys ? false,
    indent ? "",
  }: set:
    lib.concatStrings (lib.concatLists (lib.mapAttrsToList (k: v:
      map (one: "${indent}${mkKeyValue k one}\n") (
        if listsAsDuplicateKeys && lib.isList v
        then v
        else [v]
      ))
    set));
  toINI = {
    mkSectionName ? (name: lib.escape ["[" "]"] name),
    mkKeyValue ? mkKeyValueDefault {} "=",
    listsAsDuplicateKeys ? false,
  }: sections:
    lib.concatStringsSep "\n" (lib.mapAttrsToList (name: values:
      "[${mkSectionName name}]\n" + toKeyValue {inherit mkKeyValue listsAsDuplicateKeys;} values)
    sections);
  toINIWithGlobalSection = args: {
    globalSection,
    sections ? {},
  }:
    (
      if globalSection == {}
      then ""
      else toKeyValue (removeAttrs args ["mkSectionName"]) globalSection + "\n"
    )
    + toINI args sections;
  toJSON = {}: builtins.toJSON;
  toYAML = {}: builtins.toJSON; # JSON is YAML
  toGNUCommandLine = {}: options:
    lib.concatLists (lib.mapAttrsToList (k: v: let
      flag =
        if lib.stringLength k > 1
        then "--${k}"
        else "-${k}";
    in
      if v == null || v == false
      then []
      else if v == true
      then [flag]
      else lib.concatMap (one: [flag (toString one)]) (lib.toList v))
    options);
  toGNUCommandLineShell = args: options: lib.escapeShellArgs (toGNUCommandLine args options);

  # A value for a message, truncated if it is long or deep. It evaluates what it shows.
  toPretty = {
    depth ? 3,
    multiline ? false,
  }: value: let
    show = left: v:
      if v == null
      then "null"
      else if lib.isBool v
      then lib.boolToString v
      else if lib.isString v
      then builtins.toJSON (builtins.unsafeDiscardStringContext v)
      else if lib.isInt v || lib.isFloat v || builtins.isPath v
      then toString v
      else if lib.isFunction v
      then "<function>"
      else if lib.isDerivation v
      then "<derivation ${v.name or "?"}>"
      else if left == 0
      then "…"
      else if lib.isList v
      then "[ ${lib.concatMapStrings (x: "${show (left - 1) x} ") v}]"
      else if lib.isAttrs v
      then "{ ${lib.concatStrings (lib.mapAttrsToList (n: x: "${n} = ${show (left - 1) x}; ") v)}}"
      else "<${builtins.typeOf v}>";
  in
    show depth value;
  toGitINI = sections:
    lib.concatStringsSep "\n" (lib.concatLists (lib.mapAttrsToList (section: values: let
      plain = lib.filterAttrs (_: v: !lib.isAttrs v) values;
      nested = lib.filterAttrs (_: lib.isAttrs) values;
      show = k: v: "\t${k} = ${
        if lib.isBool v
        then lib.boolToString v
        else if lib.isString v
        then ''"${lib.escape ["\\" "\""] v}"''
        else toString v
      }\n";
      body = set: lib.concatStrings (lib.concatLists (lib.mapAttrsToList (k: v: map (show k) (lib.toList v)) set));
    in
      lib.mapAttrsToList (sub: set: "[${section} \"${sub}\"]\n${body set}") nested
      ++ lib.optional (plain != {}) "[${section}]\n${body plain}")
    sections));
  mkLuaInline = expr: {
    _type = "lua-inline";
    inherit expr;
  };
}
