# Reads modules in every notation, with all their imports.
lib: let
  inherit (lib) concatMap elem filter head isAttrs isFunction mkMerge optional;
  reserved = ["_class" "_file" "_known" "key" "disabledModules" "imports" "options" "config" "meta" "freeformType"];

  # A module in any notation (path, function, plain definitions) as { file; key; imports; disabled; options; config; }.
  loadModule = callModule: fallback: module: let
    isFile = builtins.isPath module || lib.isString module;
    loaded =
      if isFile
      then import module
      else module;
    file =
      if isFile
      then toString module
      else fallback.file;
    called =
      if isFunction loaded
      then callModule file loaded
      else loaded;
    key =
      if isFile
      then toString module
      else called.key or fallback.key;
    # `mkIf …` or `mkMerge […]` in place of a whole module
    m =
      if called ? _type
      then {config = called;}
      else called;
    full = m ? config || m ? options;
    odd = removeAttrs m reserved;
    name = m._file or file;
  in
    if !isAttrs called
    then throw "module `${file}' is not a function, path or attribute set but a ${builtins.typeOf called}"
    else if full && odd != {}
    then throw "Module `${name}' has an unsupported attribute `${head (builtins.attrNames odd)}'. This is caused by introducing a top-level `config' or `options' attribute. Add configuration attributes immediately on the top level instead, or move all of them into the explicit `config' attribute."
    else {
      file = name;
      inherit key;
      imports = m.imports or [];
      disabled = m.disabledModules or [];
      # the sets of real modules without a module here (known.nix)
      known = m._known or [];
      options = m.options or {};
      config = mkMerge ([
          (
            if full
            then m.config or {}
            else odd
          )
        ]
        ++ optional (m ? freeformType) {_module.freeformType = m.freeformType;});
    };

  # All modules with their imports, each file once, without the disabled ones.
  collectModules = callModule: modulesPath: modules: let
    node = file: key: module: let
      loaded = loadModule callModule {inherit file key;} module;
    in {
      inherit (loaded) key;
      inherit loaded;
    };
    children = parent: lib.imap1 (n: node parent.file "${parent.key}:anon-${toString n}") parent.imports;
    start = lib.imap1 (n: node "<unknown-file>" ":anon-${toString n}") modules;
    closure = keep:
      map (n: n.loaded) (builtins.genericClosure {
        startSet = filter keep start;
        operator = n: filter keep (children n.loaded);
      });
    everything = closure (_: true);
    disabled = concatMap (m:
      map (d:
        if isAttrs d
        then d.key
        else if lib.isString d && !lib.hasPrefix "/" d
        then "${modulesPath}/${d}"
        else toString d)
      m.disabled)
    everything;
  in
    if disabled == []
    then everything
    else closure (n: !elem n.key disabled);
in {
  inherit collectModules;
}
