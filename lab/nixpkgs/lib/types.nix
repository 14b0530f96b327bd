# The types of options. A type is `{ name; description; check = value -> bool; merge = path -> definitions -> value; }`;
# a definition is `{ file; value; }`, with conditions and priorities already resolved.
lib: let
  inherit (lib) showDefs showOption;
  inherit (lib.modules) mergeDefinitions;

  mkType = attrs:
    {
      _type = "option-type";
      description = attrs.name;
      check = _: true;
      merge = mergeEqual;
      getSubModules = null;
      nestedTypes = {};
    }
    // attrs;

  # The value, if all definitions agree.
  mergeEqual = path: defs:
    (lib.foldl' (first: def:
      if def.value == first.value
      then first
      else throw "The option `${showOption path}' has conflicting definition values:${showDefs [first def]}\nUse `lib.mkForce value' or `lib.mkDefault value' to change the priority on any of these definitions.")
    (lib.head defs) (lib.tail defs))
    .value;
  mergeOne = hint: path: defs:
    if lib.length defs == 1
    then (lib.head defs).value
    else throw "The option `${showOption path}' is defined multiple times while it's expected to be unique.${hint}\nDefinition values:${showDefs defs}";

  # Merge the definitions of each attribute; `type` is the values' type. With `lazy`, the attribute names are known
  # without evaluating any condition; an attribute whose conditions are all false is then an error to read.
  mergeAttrsWith = lazy: type: path: defs: let
    byName = lib.zipAttrsWith (_: found: found) (map (def:
      lib.mapAttrs (_: value: {
        inherit (def) file;
        inherit value;
      })
      def.value)
    defs);
    merged = lib.mapAttrs (name: found: mergeDefinitions (path ++ [name]) type found) byName;
  in
    if lazy
    then
      lib.mapAttrs (_: m:
        if m.isDefined
        then m.value
        else type.emptyValue or m.value)
      merged
    else lib.mapAttrs (_: m: m.value) (lib.filterAttrs (_: m: m.isDefined) merged);

  bounded = name: low: high:
    mkType {
      inherit name;
      description = "integer between ${toString low} and ${toString high} (both inclusive)";
      check = x: lib.isInt x && x >= low && x <= high;
    };
  simple = name: description: check: mkType {inherit name description check;};
in rec {
  inherit mkType;
  mergeEqualOption = mergeEqual;
  mergeOneOption = mergeOne "";
  mkOptionType = mkType;
  isOptionType = x: x._type or null == "option-type";

  raw = mkType {
    name = "raw";
    merge = mergeOne "";
  };
  unspecified = mkType {
    name = "unspecified";
    merge = anything.merge;
  };
  optionType = simple "optionType" "an option type" isOptionType;
  bool = simple "bool" "boolean" lib.isBool;
  boolByOr = bool // {merge = _: lib.any (def: def.value);};
  int = simple "int" "signed integer" lib.isInt;
  float = simple "float" "floating point number" lib.isFloat;
  number = either int float;
  numbers = {
    between = low: high: addCheck number (x: x >= low && x <= high);
    positive = addCheck number (x: x > 0);
    nonnegative = addCheck number (x: x >= 0);
  };
  ints = {
    between = bounded "intBetween";
    positive = simple "positiveInt" "positive integer, meaning >0" (x: lib.isInt x && x > 0);
    unsigned = simple "unsignedInt" "unsigned integer, meaning >=0" (x: lib.isInt x && x >= 0);
    u8 = bounded "unsignedInt8" 0 255;
    u16 = bounded "unsignedInt16" 0 65535;
    u32 = bounded "unsignedInt32" 0 4294967295;
    s8 = bounded "signedInt8" (-128) 127;
    s16 = bounded "signedInt16" (-32768) 32767;
    s32 = bounded "signedInt32" (-2147483648) 2147483647;
  };
  port = bounded "port" 0 65535;

  str = simple "str" "string" lib.isString;
  nonEmptyStr = simple "nonEmptyStr" "non-empty string" (x: lib.isString x && builtins.match "[ \t\n]*" x == null);
  singleLineStr = simple "singleLineStr" "string without line breaks" (x: lib.isString x && !lib.hasInfix "\n" (lib.removeSuffix "\n" x));
  strMatching = regex: simple "strMatching" "string matching the pattern ${regex}" (x: lib.isString x && builtins.match regex x != null);
  passwdEntry = base: addCheck base (x: !lib.hasInfix ":" x);
  separatedString = sep:
    mkType {
      name = "separatedString";
      description =
        if sep == ""
        then "concatenated string"
        else "strings concatenated with ${builtins.toJSON sep}";
      check = lib.isString;
      merge = _: defs: lib.concatStringsSep sep (lib.getValues defs);
    };
  lines =
    separatedString "\n"
    // {
      name = "lines";
      description = "strings, one or more lines";
    };
  commas = separatedString ",";
  envVar = separatedString ":";
  string = separatedString "";

  path = simple "path" "absolute path" (x: lib.isStringLike x && builtins.substring 0 1 (toString x) == "/");
  externalPath = addCheck path (x: !lib.isStorePath x);
  pathInStore = simple "pathInStore" "path in the Nix store" lib.isStorePath;
  pathWith = {
    absolute ? null,
    inStore ? null,
  }:
    simple "path" "path" (x: lib.isStringLike x && (absolute != true || path.check x) && (inStore != true || lib.isStorePath x));
  package = mkType {
    name = "package";
    check = x: lib.isDerivation x || lib.isStorePath x;
    merge = mergeOne "";
  };
  shellPackage = package;
  pkgs = simple "pkgs" "Nixpkgs package set" (x: x._type or null == "pkgs");

  enum = values:
    mkType {
      name = "enum";
      description = "one of ${lib.concatMapStringsSep ", " (lib.generators.toPretty {}) values}";
      check = x: lib.elem x values;
      payload = values;
    };
  nullOr = elem:
    mkType {
      name = "nullOr";
      description = "null or ${elem.description}";
      check = x: x == null || elem.check x;
      merge = path: defs:
        if lib.all (def: def.value == null) defs
        then null
        else if lib.any (def: def.value == null) defs
        then throw "The option `${showOption path}' is defined both null and not null:${showDefs defs}"
        else elem.merge path defs;
      emptyValue = null;
      inherit (elem) getSubModules;
      nestedTypes.elemType = elem;
    };
  either = a: b:
    mkType {
      name = "either";
      description = "${a.description} or ${b.description}";
      check = x: a.check x || b.check x;
      merge = path: defs:
        if lib.all (def: a.check def.value) defs
        then a.merge path defs
        else if lib.all (def: b.check def.value) defs
        then b.merge path defs
        else mergeEqual path defs;
      nestedTypes = {
        left = a;
        right = b;
      };
    };
  oneOf = types: lib.foldl' either (lib.head types) (lib.tail types);
  coercedTo = from: convert: to:
    mkType {
      name = "coercedTo";
      description = "${to.description} or ${from.description} convertible to it";
      check = x: (from.check x && to.check (convert x)) || to.check x;
      merge = path: defs:
        to.merge path (map (def:
          def
          // {
            value =
              if from.check def.value
              then convert def.value
              else def.value;
          })
        defs);
      emptyValue = to.emptyValue or (throw "no value");
      inherit (to) getSubModules;
      nestedTypes.finalType = to;
    };
  addCheck = type: check: type // {check = x: type.check x && check x;};
  uniq = unique {message = "";};
  unique = {message}: type:
    type
    // {
      merge = path: defs:
        if lib.length defs == 1
        then type.merge path defs
        else mergeOne " ${message}" path defs;
    };
  functionTo = elem:
    mkType {
      name = "functionTo";
      description = "function that evaluates to a(n) ${elem.description}";
      check = lib.isFunction;
      merge = path: defs: arg: (mergeDefinitions (path ++ ["<function body>"]) elem (map (def: def // {value = def.value arg;}) defs)).value;
      nestedTypes.elemType = elem;
    };

  listOf = elem:
    mkType {
      name = "listOf";
      description = "list of ${elem.description}";
      check = lib.isList;
      merge = path: defs:
        map (m: m.value) (lib.filter (m: m.isDefined) (lib.concatLists (lib.imap1 (n: def:
          lib.imap1 (m: value:
            mergeDefinitions (path ++ ["[definition ${toString n}-entry ${toString m}]"]) elem [
              {
                inherit (def) file;
                inherit value;
              }
            ])
          def.value)
        defs)));
      emptyValue = [];
      getSubModules = elem.getSubModules;
      nestedTypes.elemType = elem;
    };
  nonEmptyListOf = elem: removeAttrs (addCheck (listOf elem) (xs: xs != [])) ["emptyValue"] // {description = "non-empty list of ${elem.description}";};
  attrsWith = {
    elemType,
    lazy ? false,
    placeholder ? "name",
  }:
    mkType {
      name =
        if lazy
        then "lazyAttrsOf"
        else "attrsOf";
      description = "attribute set of ${elemType.description}";
      check = x: lib.isAttrs x && !lib.isDerivation x;
      merge = mergeAttrsWith lazy elemType;
      emptyValue = {};
      getSubModules = elemType.getSubModules;
      nestedTypes.elemType = elemType;
    };
  attrsOf = elemType: attrsWith {inherit elemType;};
  lazyAttrsOf = elemType:
    attrsWith {
      inherit elemType;
      lazy = true;
    };
  attrs = mkType {
    name = "attrs";
    description = "attribute set";
    check = lib.isAttrs;
    merge = _: defs: lib.foldl' (all: def: all // def.value) {} defs;
    emptyValue = {};
  };
  # Sets merge deeply, other values must agree.
  anything = deep (_: _: null);
  # The same for options that the stand-in does not declare: lists join, because their type is unknown.
  undeclared = deep (path: defs: lib.concatLists (lib.getValues defs));
  deep = mergeLists: let
    self = mkType {
      name = "anything";
      merge = path: defs: let
        isTree = x: lib.isAttrs x && !lib.isStringLike x && !lib.isFunction x && !(x ? _type);
        kind = x:
          if isTree x
          then "set"
          else builtins.typeOf x;
        first = kind (lib.head defs).value;
        lists = mergeLists path defs;
      in
        if !lib.all (def: kind def.value == first) defs
        then mergeEqual path defs
        else if first == "set"
        then mergeAttrsWith true self path defs
        else if first == "list" && lists != null
        then lists
        else if first == "lambda" && lib.length defs > 1
        then arg: self.merge (path ++ ["<function body>"]) (map (def: def // {value = def.value arg;}) defs)
        else mergeEqual path defs;
    };
  in
    self;

  submodule = modules:
    submoduleWith {
      modules = lib.toList modules;
      shorthandOnlyDefinesConfig = true;
    };
  submoduleWith = {
    modules,
    specialArgs ? {},
    shorthandOnlyDefinesConfig ? false,
    description ? null,
    class ? null,
    known ? [],
  }: let
    evaluate = path: more:
      lib.evalModules {
        inherit known;
        modules = modules ++ more;
        specialArgs = specialArgs;
        prefix = path;
        nameArgument =
          if path == []
          then "‹name›"
          else lib.last path;
      };
  in
    mkType {
      name = "submodule";
      description =
        if description == null
        then "submodule"
        else description;
      check = x: lib.isAttrs x || lib.isFunction x || path.check x;
      merge = path: defs:
        (evaluate path (map (def:
          if lib.isAttrs def.value && shorthandOnlyDefinesConfig
          then {
            _file = def.file;
            config = def.value;
          }
          else {
            _file = def.file;
            imports = [def.value];
          })
        defs))
        .config;
      emptyValue = {};
      getSubModules = modules;
      substSubModules = modules: submoduleWith {inherit modules specialArgs shorthandOnlyDefinesConfig description class known;};
      # the same with options that the real modules declare in it
      withKnown = nodes:
        submoduleWith {
          inherit modules specialArgs shorthandOnlyDefinesConfig description class;
          known = known ++ nodes;
        };
      getSubOptions = path: (evaluate path []).options;
    };
  deferredModule = deferredModuleWith {};
  deferredModuleWith = {staticModules ? []}:
    mkType {
      name = "deferredModule";
      description = "module";
      check = x: lib.isAttrs x || lib.isFunction x || path.check x;
      merge = _: defs: {
        imports =
          staticModules
          ++ map (def: {
            _file = def.file;
            imports = [def.value];
          })
          defs;
      };
      emptyValue = {imports = staticModules;};
    };
}
