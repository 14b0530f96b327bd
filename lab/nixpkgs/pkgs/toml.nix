# A value as TOML: plain values first, then tables by their full path.
lib: let
  inline = v:
    if lib.isList v
    then "[${lib.concatMapStringsSep ", " inline v}]"
    else if lib.isAttrs v
    then "{${lib.concatStringsSep ", " (lib.mapAttrsToList (k: x: "${key k} = ${inline x}") v)}}"
    else builtins.toJSON v;
  key = k:
    if builtins.match "[A-Za-z0-9_-]+" k != null
    then k
    else builtins.toJSON k;
  table = path: set: let
    plain = lib.filterAttrs (_: v: !lib.isAttrs v && v != null) set;
    tables = lib.filterAttrs (_: lib.isAttrs) set;
  in
    lib.optionalString (path != [] && (plain != {} || tables == {})) "[${lib.concatMapStringsSep "." key path}]\n"
    + lib.concatStrings (lib.mapAttrsToList (k: v: "${key k} = ${inline v}\n") plain)
    + lib.concatStrings (lib.mapAttrsToList (k: v: table (path ++ [k]) v) tables);
in
  table []
