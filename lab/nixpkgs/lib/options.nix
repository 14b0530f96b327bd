# Declaring options.
lib: rec {
  isOption = x: x._type or null == "option";
  mkOption = attrs: attrs // {_type = "option";};
  mkEnableOption = what:
    mkOption {
      type = lib.types.bool;
      default = false;
      description = "Whether to enable ${what}.";
    };
  # `default` is a name or a path of names in pkgs, or null for "none unless set".
  mkPackageOption = pkgs: name: {
    default ? name,
    nullable ? false,
    example ? null,
    extraDescription ? "",
    pkgsText ? "pkgs",
  }: let
    path = lib.toList default;
  in
    mkOption {
      type =
        (
          if nullable
          then lib.types.nullOr
          else lib.id
        )
        lib.types.package;
      description = "The ${lib.concatStringsSep "." (lib.toList name)} package to use. ${extraDescription}";
    }
    // lib.optionalAttrs (default != null || nullable) {
      default =
        if default == null
        then null
        else lib.attrByPath path (throw "${pkgsText} has no ${lib.concatStringsSep "." path}") pkgs;
    };
  mkPackageOptionMD = mkPackageOption;
  mkSinkUndeclaredOptions = attrs:
    mkOption ({
        internal = true;
        visible = false;
        default = false;
      }
      // attrs);

  literalExpression = text: {
    _type = "literalExpression";
    inherit text;
  };
  literalMD = text: {
    _type = "literalMD";
    inherit text;
  };
  mdDoc = lib.id;

  # An option's path as users write it: plain names bare, all others quoted.
  showOption = path:
    lib.concatMapStringsSep "." (name:
      if builtins.match "[a-zA-Z_<*][a-zA-Z0-9_'>*-]*" name != null
      then name
      else builtins.toJSON name)
    path;
  showFiles = files: lib.concatMapStringsSep " and " (file: "`${file}'") files;
  # A value that cannot be shown because it is wrong itself is left out.
  showDefs = defs:
    lib.concatMapStrings (def: let
      shown = builtins.tryEval (let text = lib.generators.toPretty {} def.value; in builtins.seq text text);
    in "\n- In `${def.file}'${lib.optionalString shown.success ": ${shown.value}"}")
    defs;
  getFiles = map (def: def.file);
  getValues = map (def: def.value);
}
