# The module system: merges many modules' options and definitions into one configuration.
lib: let
  inherit (lib) concatMap head optional showDefs showOption;
  inherit (import ./definitions.nix lib) defaultPriority discharge mergeDefinitions mkIf mkMerge mkOptionDefault mkOrder mkOverride pushDown;
  inherit (import ./load.nix lib) collectModules;
  inherit (import ./options.nix lib) mergeLevel;
  inherit (import ./known.nix lib) knownOptions movedDefinitions;

  setAttr = lib.setAttrByPath;
  optionsOf = path: mkOption': setAttr path mkOption';
in {
  inherit knownOptions mergeDefinitions mkIf mkMerge mkOverride mkOrder mkOptionDefault defaultPriority;
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
  setDefaultModuleLocation = file: module: {
    _file = file;
    imports = [module];
  };
  importApply = file: args: {
    _file = file;
    imports = [(import file args)];
  };

  mkRemovedOptionModule = path: hint: {options, ...}: {
    options = optionsOf path (lib.mkOption {
      visible = false;
      type = lib.types.raw;
    });
    config.assertions = [
      {
        assertion = !(lib.attrByPath path {isDefined = false;} options).isDefined;
        message = "The option definition `${showOption path}' no longer has any effect; please remove it. ${hint}";
      }
    ];
  };
  mkAliasOptionModule = from: to: {
    config,
    options,
    ...
  }: let
    alias =
      lib.attrByPath from {
        isDefined = false;
        definitions = [];
      }
      options;
  in {
    options = optionsOf from (lib.mkOption {
      visible = false;
      type = lib.types.unspecified;
      apply = _: lib.getAttrFromPath to config;
    });
    config = setAttr to (mkMerge alias.definitions);
  };
  mkRenamedOptionModule = lib.mkAliasOptionModule;
  mkRenamedOptionModuleWith = {
    from,
    to,
    ...
  }:
    lib.mkAliasOptionModule from to;
  mkAliasDefinitions = option: mkIf option.isDefined (mkMerge option.definitions);
  mkChangedOptionModule = from: to: convert: {config, ...}: {
    options = optionsOf from (lib.mkOption {
      visible = false;
      type = lib.types.unspecified;
      default = null;
    });
    config = mkIf (lib.getAttrFromPath from config != null) (setAttr to (convert config));
  };

  evalModules = args @ {
    modules,
    specialArgs ? {},
    prefix ? [],
    class ? null,
    nameArgument ? null,
    known ? [],
  }: let
    internal = {
      _file = "lib/modules";
      options._module = {
        args = lib.mkOption {
          type = lib.types.lazyAttrsOf lib.types.raw;
          internal = true;
        };
        freeformType = lib.mkOption {
          type = lib.types.nullOr lib.types.optionType;
          default = null;
          internal = true;
        };
        check = lib.mkOption {
          type = lib.types.bool;
          default = true;
          internal = true;
        };
      };
      config._module.args = {inherit extendModules;} // lib.optionalAttrs (nameArgument != null) {name = nameArgument;};
    };
    # The arguments of every module, and those that its function requests by name, possibly from _module.args.
    always = {inherit lib options config specialArgs;} // specialArgs;
    callModule = file: f:
      f (always
        // lib.mapAttrs (name: _:
          always.${name}
          or (builtins.addErrorContext "while evaluating the module argument `${name}' in `${file}':"
            (config._module.args.${name} or (throw "module `${file}' asks for the argument `${name}', which is not defined"))))
        (lib.functionArgsOf f));
    # Later modules' definitions come first, and an import's before those of its importer.
    collected = lib.reverseList (collectModules callModule (specialArgs.modulesPath or "") ([internal] ++ modules));
    # The free-form type is determined first, because the rest of the tree depends on it.
    decls = map (m: {inherit (m) file options;}) collected;
    defs =
      map (m: {
        inherit (m) file;
        value = m.config;
      })
      collected;
    own = mergeLevel null [] prefix [
      {
        file = internal._file;
        inherit (internal) options;
      }
    ] (ownDefs defs);
    ownDefs = concatMap (def:
      concatMap (set:
        optional (set ? _module) {
          inherit (def) file;
          value = {inherit (set) _module;};
        }) (pushDown def.value));
    freeform = own.config._module.freeformType;
    sets = concatMap (m: m.known) collected;
    level = mergeLevel freeform (known ++ map (set: set.options) sets) prefix decls (defs ++ movedDefinitions sets defs);
    inherit (level) options;
    config = level.config // own.config;
    unknown = head level.undeclared;
    checked =
      if freeform == null && own.config._module.check && level.undeclared != []
      then throw "The option `${showOption unknown.path}' does not exist. Definition values:${showDefs (concatMap (discharge unknown.path) unknown.defs)}"
      else config;
    extendModules = more:
      lib.evalModules (args
        // {
          modules = modules ++ more.modules or [];
          specialArgs = specialArgs // more.specialArgs or {};
          prefix = more.prefix or prefix;
        });
  in {
    _type = "configuration";
    inherit options extendModules class;
    config = removeAttrs checked ["_module"];
    _module = config._module // {inherit specialArgs;};
    type = lib.types.submoduleWith {inherit modules specialArgs;};
  };
}
