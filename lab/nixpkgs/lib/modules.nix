# The module system: many modules' options and definitions become one configuration.
lib: let
  inherit (lib) concatLists concatMap elem filter head isAttrs isFunction isOption length mapAttrs optional showDefs showFiles showOption;

  defaultPriority = 100;
  reserved = ["_class" "_file" "key" "disabledModules" "imports" "options" "config" "meta" "freeformType"];

  # ---- Reading modules -----------------------------------------------------------------------------------------

  # A module of any notation (path, function, plain definitions) as { file; key; imports; disabled; options; config; }.
  loadModule = callModule: fallback: module: let
    isFile = builtins.isPath module || lib.isString module;
    loaded = if isFile then import module else module;
    file = if isFile then toString module else fallback.file;
    called = if isFunction loaded then callModule file loaded else loaded;
    key = if isFile then toString module else called.key or fallback.key;
    # `mkIf …` or `mkMerge […]` in place of a whole module
    m = if called ? _type then {config = called;} else called;
    full = m ? config || m ? options;
    odd = removeAttrs m reserved;
    name = m._file or file;
  in
    if !isAttrs called then throw "module `${file}' is not a function, path or attribute set but a ${builtins.typeOf called}"
    else if full && odd != {} then
      throw "Module `${name}' has an unsupported attribute `${head (builtins.attrNames odd)}'. This is caused by introducing a top-level `config' or `options' attribute. Add configuration attributes immediately on the top level instead, or move all of them into the explicit `config' attribute."
    else {
      file = name;
      inherit key;
      imports = m.imports or [];
      disabled = m.disabledModules or [];
      options = m.options or {};
      config = mkMerge ([(if full then m.config or {} else odd)]
        ++ optional (m ? freeformType) {_module.freeformType = m.freeformType;});
    };

  # All modules with their imports, each file once, without the disabled ones.
  collectModules = callModule: modulesPath: modules: let
    node = file: key: module: let loaded = loadModule callModule {inherit file key;} module; in {inherit (loaded) key; inherit loaded;};
    children = parent: concatLists [(lib.imap1 (n: node parent.file "${parent.key}:anon-${toString n}") parent.imports)];
    start = lib.imap1 (n: node "<unknown-file>" ":anon-${toString n}") modules;
    closure = keep: map (n: n.loaded) (builtins.genericClosure {
      startSet = filter keep start;
      operator = n: filter keep (children n.loaded);
    });
    everything = closure (_: true);
    disabled = concatMap (m: map (d:
      if isAttrs d then d.key else if lib.isString d && !lib.hasPrefix "/" d then "${modulesPath}/${d}" else toString d) m.disabled) everything;
  in
    if disabled == [] then everything else closure (n: !elem n.key disabled);

  # ---- Conditions, priorities, order ----------------------------------------------------------------------------

  # [{file; value;}] with every mkMerge taken apart and every mkIf decided; the condition of an mkIf must be a boolean.
  discharge = path: def: let
    value = def.value;
    type = value._type or null;
    again = content: discharge path (def // {value = content;});
  in
    if !isAttrs value then [def]
    else if type == "merge" then concatMap again value.contents
    else if type == "if" then
      (if !lib.isBool value.condition then throw "‘mkIf’ called with a non-Boolean condition for the option `${showOption path}' in `${def.file}'"
      else if value.condition then again value.content else [])
    # what an override holds is looked at when it is known to win
    else if type == "override" then [(def // {value = value.content; priority = def.priority or value.priority; sealed = true;})]
    else if type == "order" then map (d: d // {order = d.order or value.priority;}) (again value.content)
    else if type == "definition" then again value.value
    else [def];

  # Only the definitions of the strongest (lowest) priority, in their order.
  strongest = path: defs: let
    priority = def: def.priority or defaultPriority;
    best = lib.foldl' (low: def: lib.min low (priority def)) 9999 defs;
    kept = concatMap (def: if def ? sealed then discharge path (removeAttrs def ["sealed"]) else [def]) (filter (def: priority def == best) defs);
    order = def: def.order or 1000;
  in {
    inherit best;
    defs = if lib.any (def: def ? order) kept then lib.sort (a: b: order a < order b) kept else kept;
  };

  # Merge what all `defs` say about the option at `path`.
  mergeDefinitions = path: type: defs: let
    ranked = strongest path (concatMap (discharge path) defs);
    wrong = filter (def: !type.check def.value) ranked.defs;
    isDefined = ranked.defs != [];
  in {
    inherit isDefined;
    highestPrio = ranked.best;
    definitions = ranked.defs;
    value = builtins.addErrorContext "while evaluating the option `${showOption path}':" (
      if !isDefined then type.emptyValue or (throw "The option `${showOption path}' was accessed but has no value defined. Try setting the option.")
      else if wrong != [] then throw "A definition for option `${showOption path}' is not of type `${type.description}'. Definition values:${showDefs wrong}"
      else type.merge path ranked.defs);
  };

  # The attribute sets that a definition consists of, conditions and priorities moved onto their attributes: the
  # names are known without deciding any condition, which may depend on the configuration.
  pushDown = value: let
    type = value._type or null;
    each = wrap: concatMap (set: [(mapAttrs (_: wrap) set)]) (pushDown value.content);
  in
    if type == "merge" then concatMap pushDown value.contents
    else if type == "if" then each (mkIf value.condition)
    else if type == "override" then each (mkOverride value.priority)
    else if type == "order" then each (mkOrder value.priority)
    else [value];

  # ---- Options and definitions meet -------------------------------------------------------------------------------

  # `decls`: [{file; options;}], `defs`: [{file; value;}] of the level `path`. With a free-form type, attributes that
  # nobody declared merge by it; without one they are listed in `undeclared`.
  mergeLevel = freeform: path: decls: defs: let
    byName = attr: xs: lib.zipAttrsWith (_: found: found) (map (x: mapAttrs (_: value: {inherit (x) file; inherit value;}) x.${attr}) xs);
    declared = byName "options" decls;
    checkSet = def: if isAttrs def.value then def
      else throw "The option `${showOption path}' has sub-options, but is set to a ${builtins.typeOf def.value} in `${def.file}'";
    defined = byName "value" (concatMap (def: map (value: checkSet (def // {inherit value;})) (pushDown def.value)) defs);
    below = mapAttrs (name: found: let
      here = path ++ [name];
      options = filter (d: isOption d.value) found;
      mine = defined.${name} or [];
    in
      if options == [] then mergeLevel freeform here (map (d: {inherit (d) file; options = d.value;}) found) mine
      else if length options != length found && (joinOptions here options).type.getSubModules or null == null
      then throw "The option `${showOption here}' in ${showFiles (map (d: d.file) options)} would be a parent of other options."
      else evalOption here found mine)
    declared;
    # declared values, then the free ones; each attribute lazily
    free = removeAttrs defined (builtins.attrNames declared);
    freeType = freeform.nestedTypes.elemType or freeform;
  in {
    options = mapAttrs (_: b: b.options) below;
    config = mapAttrs (_: b: b.config) below
      // lib.optionalAttrs (freeform != null) (mapAttrs (name: found: (mergeDefinitions (path ++ [name]) freeType found).value) free);
    undeclared = concatMap (b: b.undeclared) (builtins.attrValues below)
      ++ lib.mapAttrsToList (name: found: {path = path ++ [name]; defs = found;}) free;
  };

  # Several declarations of one option: their attributes together, submodules merged.
  joinOptions = path: found: lib.foldl' (all: d: let
    new = d.value;
    type = if !(all ? type) then new.type or lib.types.unspecified
      else if !(new ? type) then all.type
      else if all.type ? substSubModules && new.type ? substSubModules then all.type.substSubModules (all.type.getSubModules ++ new.type.getSubModules)
      else if all.type.name == "enum" && new.type.name == "enum" then lib.types.enum (lib.unique (all.type.payload ++ new.type.payload))
      else if all.type.name == new.type.name then all.type
      else throw "The option `${showOption path}' in `${d.file}' is already declared in ${showFiles all.declarations} with another type.";
  in
    if all ? default && new ? default && all ? type && all.type.name != "submodule" then throw "The option `${showOption path}' in `${d.file}' is already declared in ${showFiles all.declarations}."
    else all // new // {inherit type; declarations = all.declarations ++ [d.file];})
  {declarations = [];} found;

  evalOption = path: found: defs: let
    nested = filter (d: !isOption d.value) found;
    joined = joinOptions path (filter (d: isOption d.value) found);
    # options declared below an option of submodule type extend the submodule
    opt = if nested == [] then joined else joined // {
      type = joined.type.substSubModules (joined.type.getSubModules ++ map (d: {_file = d.file; options = d.value;}) nested);
    };
    default = optional (opt ? default) {file = head opt.declarations; value = mkOptionDefault opt.default;};
    merged = mergeDefinitions path opt.type (defs ++ default);
    value =
      if opt.readOnly or false && length defs > 1 then throw "The option `${showOption path}' is read-only, but it's set multiple times. Definition values:${showDefs defs}"
      else (opt.apply or lib.id) merged.value;
    here = opt // {
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

  # ---- Writing definitions ------------------------------------------------------------------------------------------

  mkIf = condition: content: {_type = "if"; inherit condition content;};
  mkMerge = contents: {_type = "merge"; inherit contents;};
  mkOverride = priority: content: {_type = "override"; inherit priority content;};
  mkOrder = priority: content: {_type = "order"; inherit priority content;};
  mkOptionDefault = mkOverride 1500;

  setAttr = lib.setAttrByPath;
  optionsOf = path: mkOption': setAttr path mkOption';
in {
  inherit mergeDefinitions mkIf mkMerge mkOverride mkOrder mkOptionDefault;
  inherit defaultPriority;
  defaultOverridePriority = defaultPriority;
  mkDefault = mkOverride 1000;
  mkImageMediaOverride = mkOverride 60;
  mkForce = mkOverride 50;
  mkVMOverride = mkOverride 10;
  mkBefore = mkOrder 500;
  mkAfter = mkOrder 1500;
  mkAssert = condition: message: content: mkIf (lib.assertMsg condition message) content;
  mkDerivedConfig = opt: f: mkOverride opt.highestPrio (f opt.value);
  mkDefinition = args: args // {_type = "definition";};
  setDefaultModuleLocation = file: module: {_file = file; imports = [module];};
  importApply = file: args: {_file = file; imports = [(import file args)];};

  mkRemovedOptionModule = path: hint: {options, ...}: {
    options = optionsOf path (lib.mkOption {visible = false; type = lib.types.raw;});
    config.assertions = [{
      assertion = !(lib.attrByPath path {isDefined = false;} options).isDefined;
      message = "The option definition `${showOption path}' no longer has any effect; please remove it. ${hint}";
    }];
  };
  mkAliasOptionModule = from: to: {config, options, ...}: let
    alias = lib.attrByPath from {isDefined = false; definitions = [];} options;
  in {
    options = optionsOf from (lib.mkOption {visible = false; type = lib.types.unspecified; apply = _: lib.getAttrFromPath to config;});
    config = setAttr to (mkMerge alias.definitions);
  };
  mkRenamedOptionModule = lib.mkAliasOptionModule;
  mkChangedOptionModule = from: to: convert: {config, ...}: {
    options = optionsOf from (lib.mkOption {visible = false; type = lib.types.unspecified; default = null;});
    config = mkIf (lib.getAttrFromPath from config != null) (setAttr to (convert config));
  };

  evalModules = args @ {modules, specialArgs ? {}, prefix ? [], class ? null, nameArgument ? null}: let
    internal = {
      _file = "lib/modules.nix";
      options._module = {
        args = lib.mkOption {type = lib.types.lazyAttrsOf lib.types.raw; internal = true;};
        freeformType = lib.mkOption {type = lib.types.nullOr lib.types.optionType; default = null; internal = true;};
        check = lib.mkOption {type = lib.types.bool; default = true; internal = true;};
      };
      config._module.args = {inherit extendModules;} // lib.optionalAttrs (nameArgument != null) {name = nameArgument;};
    };
    # What every module gets, and what its function asks for by name; the latter may come from _module.args.
    always = {inherit lib options config specialArgs;} // specialArgs;
    callModule = file: f: f (always // lib.mapAttrs (name: _:
      always.${name} or (builtins.addErrorContext "while evaluating the module argument `${name}' in `${file}':"
        (config._module.args.${name} or (throw "module `${file}' asks for the argument `${name}', which nobody gives"))))
      (lib.functionArgsOf f));
    collected = collectModules callModule (specialArgs.modulesPath or "") (modules ++ [internal]);
    # The free-form type is looked up among the definitions first: the rest of the tree depends on it.
    decls = map (m: {inherit (m) file options;}) collected;
    defs = map (m: {inherit (m) file; value = m.config;}) collected;
    own = mergeLevel null prefix [{file = internal._file; inherit (internal) options;}] (ownDefs defs);
    ownDefs = concatMap (def: concatMap (set: optional (set ? _module) {inherit (def) file; value = {inherit (set) _module;};}) (pushDown def.value));
    freeform = own.config._module.freeformType;
    level = mergeLevel freeform prefix decls defs;
    inherit (level) options;
    config = level.config // own.config;
    unknown = head level.undeclared;
    checked =
      if freeform == null && own.config._module.check && level.undeclared != []
      then throw "The option `${showOption unknown.path}' does not exist. Definition values:${showDefs (concatMap (discharge unknown.path) unknown.defs)}"
      else config;
    extendModules = more: lib.evalModules (args // {
      modules = modules ++ more.modules or [];
      specialArgs = specialArgs // more.specialArgs or {};
      prefix = more.prefix or prefix;
    });
  in {
    _type = "configuration";
    inherit options extendModules class;
    config = removeAttrs checked ["_module"];
    inherit (config) _module;
    type = lib.types.submoduleWith {inherit modules specialArgs;};
  };
}
